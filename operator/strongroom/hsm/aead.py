# SPDX-License-Identifier: Apache-2.0
"""AES-256-GCM inside the token: C_EncryptInit and C_Encrypt, C_DecryptInit and C_Decrypt, nothing between.

No size query: a third of the round trips to a network HSM, and some tokens answer it wrongly. Mechanism, parameters,
arguments and buffers are made once, since a software token needs ten microseconds for a value and ctypes as many for
building them; the buffers are ours and are overwritten after every call.
"""

import ctypes

from strongroom.hsm import wire
from strongroom.hsm.buffers import Buffer
from strongroom.hsm.cryptoki import Functions, GcmParameters, KeyHandles, Mechanism, pointer, ulong
from strongroom.hsm.nonces import Nonces
from strongroom.hsm.outcome import Outcome
from strongroom.hsm.values import MAX_AAD_BYTES
from strongroom.model.limits import MAX_PLAINTEXT_BYTES, TAG_BYTES
from strongroom.profiles import IvSource, Profile

_MAX_IV_BYTES = 16
_OUTPUT_BYTES = _MAX_IV_BYTES + MAX_PLAINTEXT_BYTES + TAG_BYTES + 64
"""Room for the largest value, its tag and its initial vector, and for tokens that want more than they write."""


class AesGcm:
    """AES-GCM on one session, for the thread that has it.

    Raises CkrError for every return code but CKR_OK, Outcome(REFUSED) for an answer of the wrong size and for an
    initial vector that the token should have made and did not.
    """

    def __init__(self, functions: Functions, session: int, profile: Profile) -> None:
        self._functions = functions
        self._session = ulong(session)
        self._iv_source = profile.iv_source
        self._iv_bytes = profile.iv_bytes
        self._nonces = Nonces(functions, session, profile.iv_bytes)
        self._no_iv = self._last_iv = bytes(profile.iv_bytes)
        self._iv = Buffer(_MAX_IV_BYTES)
        self._aad = Buffer(MAX_AAD_BYTES)
        self._input = Buffer(MAX_PLAINTEXT_BYTES)
        self._output = Buffer(_OUTPUT_BYTES)
        self._size = ulong()
        self._length = ulong()
        self._length_pointer = pointer(ctypes.addressof(self._length))
        self._parameters = GcmParameters(aad=self._aad.address, tag_bits=TAG_BYTES * 8)
        self._mechanism = Mechanism(profile.gcm_mechanism, self._parameters)
        self._mechanism_pointer = pointer(ctypes.addressof(self._mechanism))

    def encrypt(self, keys: KeyHandles, plaintext: bytearray, aad: bytes) -> tuple[bytes, bytes]:
        """(nonce, ciphertext ‖ tag). At most 4096 bytes of plaintext, 8192 of `aad` (ValueError). Every attempt has a
        nonce of its own."""
        size = len(plaintext)
        match self._iv_source:
            case IvSource.HOST:
                nonce = self._nonces.next()
                self._give_iv(nonce)
                return nonce, self._encrypt(keys.main, plaintext, aad, size + TAG_BYTES)
            case IvSource.ZERO_BUFFER:
                self._give_iv(self._no_iv)
                body = self._encrypt(keys.main, plaintext, aad, size + TAG_BYTES)
                return self._made_by_token(bytes(self._iv.view[: self._iv_bytes])), body
            case IvSource.PREPENDED:
                self._give_no_iv()
                output = self._encrypt(keys.main, plaintext, aad, size + TAG_BYTES + self._iv_bytes)
                return self._made_by_token(output[: self._iv_bytes]), output[self._iv_bytes :]
            case IvSource.APPENDED:
                self._give_no_iv()
                output = self._encrypt(keys.main, plaintext, aad, size + TAG_BYTES + self._iv_bytes)
                return self._made_by_token(output[size + TAG_BYTES :]), output[: size + TAG_BYTES]

    def decrypt(self, keys: KeyHandles, nonce: bytes, body: bytes, aad: bytes) -> bytearray:
        """The plaintext, which the caller wipes. `nonce` is 12 or 16 bytes, whatever the token makes; `body` is
        16..4112 bytes."""
        if self._iv_source is IvSource.PREPENDED:  # such tokens want it back where they put it
            if len(nonce) != self._iv_bytes:
                raise Outcome(wire.Failure.REFUSED)  # the token would cut it elsewhere
            self._give_no_iv()
            return self._decrypt(keys.main, nonce + body, aad, len(body) - TAG_BYTES)
        self._give_iv(nonce)
        return self._decrypt(keys.main, body, aad, len(body) - TAG_BYTES)

    def _give_iv(self, iv: bytes) -> None:
        size = len(iv)
        self._iv.view[:size] = iv
        self._parameters.iv = self._iv.address
        self._parameters.iv_length = size
        self._parameters.iv_bits = size * 8

    def _give_no_iv(self) -> None:
        """The token makes one, of so many bits: some make 16 bytes unless told."""
        self._parameters.iv = None
        self._parameters.iv_length = 0
        self._parameters.iv_bits = self._iv_bytes * 8

    def _made_by_token(self, iv: bytes) -> bytes:
        """Refuses one that was not made, or not made anew. A nonce used twice gives the key's authentication away."""
        if iv in (self._no_iv, self._last_iv):
            raise Outcome(wire.Failure.REFUSED)
        self._last_iv = iv
        return iv

    def _encrypt(self, key: int, plaintext: bytearray, aad: bytes, expected: int) -> bytes:
        size = len(plaintext)
        self._give_aad(aad)
        try:
            self._input.view[:size] = plaintext
            self._size.value = size
            self._functions.C_EncryptInit(self._session, self._mechanism_pointer, key)
            self._functions.C_Encrypt(
                self._session, self._input.pointer, self._size, self._output.pointer, self._length_pointer
            )
            if self._length.value != expected:
                raise Outcome(wire.Failure.REFUSED)
            return bytes(self._output.view[:expected])
        finally:
            self._input.wipe(size)
            self._output.wipe(expected)

    def _decrypt(self, key: int, data: bytes, aad: bytes, expected: int) -> bytearray:
        self._give_aad(aad)
        try:
            self._size.value = len(data)
            self._functions.C_DecryptInit(self._session, self._mechanism_pointer, key)
            self._functions.C_Decrypt(self._session, data, self._size, self._output.pointer, self._length_pointer)
            if self._length.value != expected:
                raise Outcome(wire.Failure.REFUSED)
            return bytearray(self._output.view[:expected])
        finally:
            self._output.wipe(len(data))

    def _give_aad(self, aad: bytes) -> None:
        size = len(aad)
        self._aad.view[:size] = aad
        self._parameters.aad_length = size
        self._length.value = _OUTPUT_BYTES
