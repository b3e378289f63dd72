# SPDX-License-Identifier: Apache-2.0
"""AES-256-CBC and HMAC-SHA-256 inside the token, for tokens without GCM: encrypted first, then authenticated, with a
key of its own for each.

    ciphertext = AES-CBC(padded as PKCS#7)
    tag        = HMAC-SHA-256(SHA-256(aad ‖ iv ‖ ciphertext ‖ bits of aad, u64 BE))

What is authenticated is that of RFC 7518 section 5.2.2.1. It is hashed here first, since small tokens take about 2 KB
in one call; the tag is not shortened. Nothing is decrypted before the token has verified the tag, so that the padding,
which is looked at here, tells nobody anything.
"""

import ctypes
import hashlib
import struct
from collections.abc import Callable, Iterator

from strongroom.hsm import wire
from strongroom.hsm.buffers import Buffer
from strongroom.hsm.cryptoki import CKM_AES_CBC, CKM_SHA256_HMAC, Functions, KeyHandles, Mechanism, ulong
from strongroom.hsm.nonces import Nonces
from strongroom.hsm.outcome import Outcome
from strongroom.model.algorithms import BLOCK_BYTES, Algorithm
from strongroom.model.limits import MAX_PLAINTEXT_BYTES
from strongroom.profiles import Profile

_ALGORITHM = Algorithm.AES_256_CBC_HMAC_SHA256
_TAG_BYTES = _ALGORITHM.tag_bytes
_MAX_DATA_BYTES = _ALGORITHM.ciphertext_bytes(MAX_PLAINTEXT_BYTES)
_OUTPUT_BYTES = _MAX_DATA_BYTES + 64
"""Room for the largest value, and for tokens that want more than they write."""
_AAD_BITS = struct.Struct(">Q")


class CbcHmac:
    """Authenticated encryption on one session, for the thread that has it; the same methods as AesGcm.

    Raises CkrError for every return code but CKR_OK (CKR_SIGNATURE_INVALID: the value is bad), Outcome(REFUSED) for an
    answer of the wrong size.
    """

    def __init__(self, functions: Functions, session: int, profile: Profile) -> None:
        self._functions = functions
        self._session = session
        self._step = max(BLOCK_BYTES, (profile.max_data_bytes or _MAX_DATA_BYTES) // BLOCK_BYTES * BLOCK_BYTES)
        self._nonces = Nonces(functions, session, _ALGORITHM.nonce_bytes)
        self._iv = Buffer(_ALGORITHM.nonce_bytes)
        self._input = Buffer(_MAX_DATA_BYTES)
        self._output = Buffer(_OUTPUT_BYTES)
        self._length = ulong()
        self._length_address = ctypes.addressof(self._length)
        self._cbc = Mechanism(CKM_AES_CBC)
        self._cbc.parameter, self._cbc.parameter_length = self._iv.address, _ALGORITHM.nonce_bytes
        self._cbc_address = ctypes.addressof(self._cbc)
        self._hmac = Mechanism(CKM_SHA256_HMAC)
        self._hmac_address = ctypes.addressof(self._hmac)

    def encrypt(self, keys: KeyHandles, plaintext: bytearray, aad: bytes) -> tuple[bytes, bytes]:
        """(initial vector, ciphertext ‖ tag): 16 bytes, and the next whole block and 32 more. At most 4096 bytes of
        plaintext (ValueError). Every attempt has an initial vector of its own."""
        size = len(plaintext)
        padding = BLOCK_BYTES - size % BLOCK_BYTES
        iv = self._nonces.next()
        try:
            self._input.view[:size] = plaintext
            self._input.view[size : size + padding] = bytes([padding]) * padding
            ciphertext = self._encrypt(keys.main, iv, size + padding)
        finally:
            self._input.wipe(_MAX_DATA_BYTES)
        return iv, ciphertext + self._sign(keys.authentication, _digest(aad, iv, ciphertext))

    def decrypt(self, keys: KeyHandles, nonce: bytes, body: bytes, aad: bytes) -> bytearray:
        """The plaintext, which the caller wipes. Outcome(INVALID_CIPHERTEXT) if lengths or padding are not of this
        form, whatever the tag says."""
        ciphertext, tag = body[:-_TAG_BYTES], body[-_TAG_BYTES:]
        if len(nonce) != _ALGORITHM.nonce_bytes or _ALGORITHM.plaintext_bytes(len(ciphertext)) is None:
            raise Outcome(wire.Failure.INVALID_CIPHERTEXT)
        self._verify(keys.authentication, _digest(aad, nonce, ciphertext), tag)
        padded = bytearray(len(ciphertext))
        try:
            self._decrypt(keys.main, nonce, ciphertext, padded)
            return padded[: -_padding(padded)]
        finally:
            wire.wipe(padded)

    def _encrypt(self, key: int, iv: bytes, size: int) -> bytes:
        """What is in the input, in steps that the token takes: CBC goes on from the last block of ciphertext."""
        ciphertext = bytearray(size)
        for start, end in self._steps(size):
            self._iv.view[:] = iv
            self._functions.C_EncryptInit(self._session, self._cbc_address, key)
            self._run(self._functions.C_Encrypt, self._input.address + start, ciphertext, start, end)
            iv = bytes(ciphertext[end - BLOCK_BYTES : end])
        return bytes(ciphertext)

    def _decrypt(self, key: int, iv: bytes, ciphertext: bytes, padded: bytearray) -> None:
        """The same backwards, into `padded`."""
        for start, end in self._steps(len(ciphertext)):
            self._iv.view[:] = iv
            self._functions.C_DecryptInit(self._session, self._cbc_address, key)
            self._run(self._functions.C_Decrypt, ciphertext[start:end], padded, start, end)
            iv = ciphertext[end - BLOCK_BYTES : end]

    def _steps(self, size: int) -> Iterator[tuple[int, int]]:
        for start in range(0, size, self._step):
            yield start, min(start + self._step, size)

    def _run(self, function: Callable[..., int], data: int | bytes, result: bytearray, start: int, end: int) -> None:
        """The second call of one step, from `data` into its place in `result`."""
        self._length.value = _OUTPUT_BYTES
        try:
            function(self._session, data, end - start, self._output.address, self._length_address)
            if self._length.value != end - start:
                raise Outcome(wire.Failure.REFUSED)
            result[start:end] = self._output.view[: end - start]
        finally:
            self._output.wipe(end - start)

    def _sign(self, key: int, digest: bytes) -> bytes:
        self._functions.C_SignInit(self._session, self._hmac_address, key)
        self._length.value = _OUTPUT_BYTES
        self._functions.C_Sign(self._session, digest, len(digest), self._output.address, self._length_address)
        if self._length.value != _TAG_BYTES:
            raise Outcome(wire.Failure.REFUSED)
        return bytes(self._output.view[:_TAG_BYTES])

    def _verify(self, key: int, digest: bytes, tag: bytes) -> None:
        """By the token, which compares in constant time and never shows the tag that would have been right."""
        self._functions.C_VerifyInit(self._session, self._hmac_address, key)
        self._functions.C_Verify(self._session, digest, len(digest), tag, len(tag))


def _digest(aad: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    return hashlib.sha256(b"".join((aad, iv, ciphertext, _AAD_BITS.pack(len(aad) * 8)))).digest()


def _padding(padded: bytearray) -> int:
    """How many of the last bytes are padding (RFC 5652 section 6.3): each says how many they are."""
    count = padded[-1]
    if not 1 <= count <= BLOCK_BYTES or padded[-count:].count(count) != count:
        raise Outcome(wire.Failure.INVALID_CIPHERTEXT)
    return count
