# SPDX-License-Identifier: Apache-2.0
"""Memory of ours that a PKCS#11 library reads and writes."""

import ctypes


class Buffer:
    """A buffer at a fixed address, made once and used for every value: nothing is built for each. Not for two threads
    at a time.

    Whoever puts a plaintext into it, or has the library do so, wipes it afterwards.
    """

    __slots__ = ("_memory", "_zeros", "address", "pointer", "view")

    def __init__(self, size: int) -> None:
        self._memory = ctypes.create_string_buffer(size)
        self._zeros = memoryview(bytes(size))
        self.address = ctypes.addressof(self._memory)
        self.pointer = ctypes.c_void_p(self.address)
        """For C: an argument made once, which ctypes need not convert for each call."""
        self.view = memoryview(self._memory).cast("B")
        """For us. Assigning what does not fit raises ValueError."""

    def wipe(self, size: int) -> None:
        """Overwrite the first `size` bytes with zeros. An eighth of what `ctypes.memset` costs at 1 KB."""
        self.view[:size] = self._zeros[:size]
