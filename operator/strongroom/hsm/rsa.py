# SPDX-License-Identifier: Apache-2.0
"""Values sealed with an RSA public key: unwrapped and decrypted in the token, sealed (probes alone) in software.

The value's own key never leaves the token: C_UnwrapKey makes it a session key that may only decrypt.
"""

import ctypes
from collections.abc import Callable

from strongroom.envelope.sealing import public_key_der, seal_with_public_key
from strongroom.hsm import ckr, wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.cryptoki import (
    CKA_CLASS,
    CKA_DECRYPT,
    CKA_ENCRYPT,
    CKA_EXTRACTABLE,
    CKA_KEY_TYPE,
    CKA_SENSITIVE,
    CKA_TOKEN,
    CKA_WRAP,
    CKG_MGF1_SHA1,
    CKG_MGF1_SHA256,
    CKK_AES,
    CKM_RSA_PKCS_OAEP,
    CKM_SHA256,
    CKM_SHA_1,
    CKO_SECRET_KEY,
    CKZ_DATA_SPECIFIED,
    CkrError,
    CryptokiSession,
    KeyHandles,
    Mechanism,
    NotDestroyedError,
    OaepParameters,
)
from strongroom.hsm.keystore import StoredKey
from strongroom.model.algorithms import Algorithm, OaepHash

_DECRYPTS_ONLY = {
    CKA_CLASS: CKO_SECRET_KEY,
    CKA_KEY_TYPE: CKK_AES,
    CKA_TOKEN: False,
    CKA_SENSITIVE: True,
    CKA_EXTRACTABLE: False,
    CKA_DECRYPT: True,
    CKA_ENCRYPT: False,
    CKA_WRAP: False,
}
OUTAGE = frozenset({CkrClass.SESSION, CkrClass.LOGIN, CkrClass.DEVICE})
"""What says nothing about the value: this session is to be given up."""
_NOT_ABOUT_THE_VALUE = OUTAGE | {CkrClass.HANDLE}


class RsaOaep:
    """Opens on one session. Not for two threads at a time. Raises CkrError and Outcome."""

    def __init__(self, session: CryptokiSession, gcm: AesGcm) -> None:
        self._session = session
        self._gcm = gcm

    def open(
        self, key: StoredKey, algorithm: Algorithm, value: wire.OpenValue, decoy: Callable[[], bytes]
    ) -> bytearray:
        """The plaintext, which the caller wipes.

        A wrapped key that is refused costs the token the same calls as one that is not and a body that is refused: the
        body is then tried with the `decoy`'s key, a wrapped key known to be good. Together with one answer for both
        this leaves little to tell them apart by (Manger, CRYPTO 2001).
        """
        try:
            return self._open(key, algorithm, value.wrapped_key, value)
        except _NotUnwrappedError as refused:
            error = refused.error
        try:
            wire.wipe(self._open(key, algorithm, decoy(), value))
        except _NotUnwrappedError:
            pass  # the canary will say what that means
        except CkrError as failure:
            if ckr.class_of(failure.code) in _NOT_ABOUT_THE_VALUE:
                raise
        raise error

    def unwrap(self, key: StoredKey, algorithm: Algorithm, wrapped_key: bytes) -> int:
        """Handle of the value's own key, to be destroyed by the caller."""
        mechanism = Mechanism(CKM_RSA_PKCS_OAEP, _parameters(algorithm))
        return self._session.unwrap_key(mechanism, key.handles.main, wrapped_key, _DECRYPTS_ONLY)

    def _open(self, key: StoredKey, algorithm: Algorithm, wrapped_key: bytes, value: wire.OpenValue) -> bytearray:
        try:
            own_key = self.unwrap(key, algorithm, wrapped_key)
        except CkrError as error:
            if ckr.class_of(error.code) in _NOT_ABOUT_THE_VALUE:
                raise
            raise _NotUnwrappedError(error) from None
        opened = bytearray()
        try:
            with self._session.temporary(own_key):
                opened = self._gcm.decrypt(KeyHandles(own_key), value.nonce, value.body, value.aad)
        except NotDestroyedError:
            wire.wipe(opened)
            raise
        return opened


class _NotUnwrappedError(Exception):
    def __init__(self, error: CkrError) -> None:
        super().__init__()
        self.error = error


def seal_probe(key: StoredKey, algorithm: Algorithm, plaintext: bytes, aad: bytes) -> wire.OpenValue:
    """A known value under this key, made in software, as clients make theirs."""
    der = public_key_der(key.modulus, key.public_exponent)
    wrapped_key, nonce, body = seal_with_public_key(der, algorithm, plaintext, lambda _: aad)
    return wire.OpenValue(wrapped_key, nonce, body, aad)


def _parameters(algorithm: Algorithm) -> ctypes.Structure:
    match algorithm.oaep_hash:
        case OaepHash.SHA1:
            return OaepParameters(CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, None, 0)
        case OaepHash.SHA256:
            return OaepParameters(CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, None, 0)
        case None:
            raise wire.ProtocolError("not an RSA algorithm")
