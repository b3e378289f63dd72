# SPDX-License-Identifier: Apache-2.0
"""AES-256-GCM inside the token: C_EncryptInit and C_Encrypt, C_DecryptInit and C_Decrypt, nothing between.

No size query: a third of the round trips to a network HSM, and some tokens answer it wrongly. The buffers are ours and
are overwritten after every call.
"""

import ctypes
import os
from collections.abc import Callable

from pkcs11.types import Session

from strongroom.hsm import wire
from strongroom.hsm.module import CKM_AES_GCM, Functions, Mechanism, Outcome, handle_of
from strongroom.model.limits import MAX_PLAINTEXT_BYTES, NONCE_BYTES, TAG_BYTES

_BUFFER_BYTES = MAX_PLAINTEXT_BYTES + TAG_BYTES + 64
"""Room for the largest value and its tag, and for tokens that want more than they write."""


class _GcmParameters(ctypes.Structure):
    """CK_GCM_PARAMS, PKCS#11 2.40 with errata 1."""

    _fields_ = (
        ("iv", ctypes.c_char_p),
        ("iv_length", ctypes.c_ulong),
        ("iv_bits", ctypes.c_ulong),
        ("aad", ctypes.c_char_p),
        ("aad_length", ctypes.c_ulong),
        ("tag_bits", ctypes.c_ulong),
    )


class AesGcm:
    """AES-GCM on one session, with key handles of that session. Not for two threads at a time.

    Raises CkrError for every return code but CKR_OK, Outcome(REFUSED) for an answer of the wrong size.
    """

    def __init__(self, functions: Functions, session: Session) -> None:
        self._functions = functions
        self._session = handle_of(session)
        self._input = ctypes.create_string_buffer(_BUFFER_BYTES)
        self._output = ctypes.create_string_buffer(_BUFFER_BYTES)
        self._input_view = memoryview(self._input).cast("B")
        self._output_view = memoryview(self._output).cast("B")
        self._mechanism: Mechanism | None = None
        """Of the last operation: a library may read the parameters in its second call, not in the first."""

    def encrypt(self, key: int, nonce: bytes, plaintext: bytearray, aad: bytes) -> bytes:
        """ciphertext ‖ tag. At most 4096 bytes of plaintext; 12 bytes of nonce."""
        self._mechanism = _mechanism(nonce, aad)
        self._functions.encrypt_init(self._session, ctypes.byref(self._mechanism), key)
        return bytes(self._run(self._functions.encrypt, plaintext, len(plaintext) + TAG_BYTES))

    def decrypt(self, key: int, nonce: bytes, body: bytes, aad: bytes) -> bytearray:
        """The plaintext, which the caller wipes. `body` is 16..4112 bytes; 12 bytes of nonce."""
        self._mechanism = _mechanism(nonce, aad)
        self._functions.decrypt_init(self._session, ctypes.byref(self._mechanism), key)
        return self._run(self._functions.decrypt, body, len(body) - TAG_BYTES)

    def nonces(self, count: int) -> list[bytes]:
        """Fresh nonces in one call: the token's random bytes XOR the kernel's, so that one bad source is not enough."""
        size = count * NONCE_BYTES
        buffer = ctypes.create_string_buffer(size)
        self._functions.generate_random(self._session, buffer, size)
        mixed = bytes(a ^ b for a, b in zip(buffer.raw, os.urandom(size), strict=True))
        nonces = [mixed[start : start + NONCE_BYTES] for start in range(0, size, NONCE_BYTES)]
        if bytes(NONCE_BYTES) in nonces:
            raise Outcome(wire.Failure.REFUSED)
        return nonces

    def _run(self, function: Callable[..., None], data: bytes | bytearray, expected: int) -> bytearray:
        """The second call of an operation."""
        length = ctypes.c_ulong(_BUFFER_BYTES)
        self._input_view[: len(data)] = data
        try:
            function(self._session, self._input, len(data), self._output, ctypes.byref(length))
            if length.value != expected:
                raise Outcome(wire.Failure.REFUSED)
            return bytearray(self._output_view[:expected])
        finally:
            ctypes.memset(self._input, 0, _BUFFER_BYTES)
            ctypes.memset(self._output, 0, _BUFFER_BYTES)


def _mechanism(nonce: bytes, aad: bytes) -> Mechanism:
    """For 96-bit nonces and 128-bit tags."""
    return Mechanism(CKM_AES_GCM, _GcmParameters(nonce, NONCE_BYTES, NONCE_BYTES * 8, aad, len(aad), TAG_BYTES * 8))
