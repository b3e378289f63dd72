# SPDX-License-Identifier: Apache-2.0
"""Initial vectors that we make ourselves."""

import os

from strongroom.hsm.buffers import Buffer
from strongroom.hsm.cryptoki import Functions

_BATCH = 64
"""How many are drawn at once: a network HSM's round trip for one would cost as much as the encryption itself."""


class Nonces:
    """Fresh ones, each handed out once: random bytes of the token XOR the kernel's, so that one bad source is not
    enough. For one session and its thread. Raises CkrError."""

    def __init__(self, functions: Functions, session: int, size: int) -> None:
        self._functions = functions
        self._session = session
        self._size = size
        self._random = Buffer(_BATCH * size)
        self._drawn: list[bytes] = []

    def next(self) -> bytes:
        """The next one."""
        if not self._drawn:
            self._draw()
        return self._drawn.pop()

    def _draw(self) -> None:
        size = _BATCH * self._size
        self._functions.C_GenerateRandom(self._session, self._random.address, size)
        mixed = int.from_bytes(self._random.view, "big") ^ int.from_bytes(os.urandom(size), "big")
        self._random.wipe(size)
        drawn = mixed.to_bytes(size, "big")
        self._drawn = [drawn[start : start + self._size] for start in range(0, size, self._size)]
