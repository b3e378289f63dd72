# SPDX-License-Identifier: Apache-2.0
"""Wraps a plaintext for one recipient: JWE compact serialisation (RFC 7516) with RSA-OAEP-256 and A256GCM (RFC 7518).

So the caller of `decrypt` alone can read the answer, not what terminates TLS on the way.
"""

import base64
import json
import os
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.apiserver.status import InvalidField
from strongroom.model.limits import NONCE_BYTES, TAG_BYTES
from strongroom.model.plaintext import Plaintext

_FIELD: Final = "spec.recipientPublicKey"
_MIN_KEY_BITS: Final = 2048
"""RFC 7518 section 4.3 demands it."""
_MAX_KEY_BITS: Final = 8192
"""Larger keys only cost time: one operation for each value."""
_CONTENT_KEY_BYTES: Final = 32
_OAEP_256: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)


class Recipient:
    """One RSA public key that answers are wrapped for."""

    def __init__(self, pem: str) -> None:
        """Raises InvalidField if this is not an RSA public key in PEM (SubjectPublicKeyInfo) of 2048 to 8192 bits."""
        try:
            key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise InvalidField(_FIELD, "is not a public key in PEM") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise InvalidField(_FIELD, "is not an RSA key", reason="FieldValueNotSupported")
        if not _MIN_KEY_BITS <= key.key_size <= _MAX_KEY_BITS:
            raise InvalidField(_FIELD, f"has {key.key_size} bits, {_MIN_KEY_BITS} to {_MAX_KEY_BITS} are allowed")
        self._key = key

    def wrap(self, plaintext: Plaintext) -> str:
        """The compact serialisation, under a content key of its own."""
        header = _base64url(json.dumps({"alg": "RSA-OAEP-256", "enc": "A256GCM"}, separators=(",", ":")).encode())
        content_key, nonce = os.urandom(_CONTENT_KEY_BYTES), os.urandom(NONCE_BYTES)
        sealed = AESGCM(content_key).encrypt(nonce, plaintext.reveal(), header.encode())
        pieces = (self._key.encrypt(content_key, _OAEP_256), nonce, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:])
        return ".".join([header, *map(_base64url, pieces)])


def _base64url(raw: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
