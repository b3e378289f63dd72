# SPDX-License-Identifier: Apache-2.0
"""The only carrier of plaintext inside the operator."""

from typing import NoReturn


class Plaintext:
    """Bytes that must not be seen. `repr` and `str` show the size alone; it cannot be pickled or compared.

    `reveal()` is the one way to the bytes, so that a search for it finds every use. `wipe()` overwrites our copy;
    copies made by libraries (JSON, TLS) are out of reach, which docs/security.md says.
    """

    __slots__ = ("_buffer",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._buffer = bytearray(value)

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return f"<Plaintext of {len(self._buffer)} bytes>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Plaintext is not serialised")

    def reveal(self) -> bytes:
        """The bytes. The caller passes them on and keeps no copy."""
        return bytes(self._buffer)

    def wipe(self) -> None:
        """Overwrite with zeros; harmless when repeated."""
        self._buffer[:] = bytes(len(self._buffer))
