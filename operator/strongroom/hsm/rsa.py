# SPDX-License-Identifier: Apache-2.0
"""Values sealed with an RSA public key: unwrapped and decrypted in the token, sealed (probes alone) in software.

The value's own key never leaves the token: C_UnwrapKey makes it a session key that may only decrypt.
"""

import ctypes

from strongroom.envelope.sealing import public_key_der, seal_with_public_key
from strongroom.hsm import wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.cryptoki import (
    CKA_CLASS,
    CKA_DECRYPT,
    CKA_DERIVE,
    CKA_ENCRYPT,
    CKA_EXTRACTABLE,
    CKA_KEY_TYPE,
    CKA_SENSITIVE,
    CKA_SIGN,
    CKA_TOKEN,
    CKA_UNWRAP,
    CKA_VERIFY,
    CKA_WRAP,
    CKG_MGF1_SHA1,
    CKG_MGF1_SHA256,
    CKK_AES,
    CKM_RSA_PKCS_OAEP,
    CKM_SHA256,
    CKM_SHA_1,
    CKO_SECRET_KEY,
    CKZ_DATA_SPECIFIED,
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
    CKA_UNWRAP: False,
    CKA_SIGN: False,
    CKA_VERIFY: False,
    CKA_DERIVE: False,
}


class RsaOaep:
    """Opens on one session. Not for two threads at a time. Raises CkrError and Outcome."""

    def __init__(self, session: CryptokiSession, gcm: AesGcm) -> None:
        self._session = session
        self._gcm = gcm

    def open(self, key: StoredKey, algorithm: Algorithm, value: wire.OpenValue) -> bytearray:
        """The plaintext, which the caller wipes."""
        own_key = self.unwrap(key, algorithm, value.wrapped_key)
        opened = bytearray()
        try:
            with self._session.temporary(own_key):
                opened = self._gcm.decrypt(KeyHandles(own_key), value.nonce, value.body, value.aad)
        except NotDestroyedError:
            wire.wipe(opened)
            raise
        return opened

    def unwrap(self, key: StoredKey, algorithm: Algorithm, wrapped_key: bytes) -> int:
        """Handle of the value's own key, to be destroyed by the caller."""
        mechanism = Mechanism(CKM_RSA_PKCS_OAEP, _parameters(algorithm))
        return self._session.unwrap_key(mechanism, key.handles.main, wrapped_key, _DECRYPTS_ONLY)


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
