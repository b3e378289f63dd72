# SPDX-License-Identifier: Apache-2.0
"""Sealing with a public key, which needs no token: RSA-OAEP and AES-256-GCM (docs/format.md).

The only module here that imports `cryptography`; the command line does without it.
"""

import os
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from strongroom.model.algorithms import Algorithm, OaepHash

_KEY_BYTES: Final = 32

_HASHES: Final[dict[OaepHash, hashes.HashAlgorithm]] = {
    OaepHash.SHA1: hashes.SHA1(),  # noqa: S303 - OAEP needs no resistance to collisions, and some tokens know no other
    OaepHash.SHA256: hashes.SHA256(),
}


def seal_with_public_key(
    public_key: bytes, algorithm: Algorithm, plaintext: bytes, aad_of: Callable[[bytes], bytes]
) -> tuple[bytes, bytes, bytes]:
    """(wrapped key, nonce, ciphertext ‖ tag) of one value, under a fresh key and nonce from the kernel.

    `public_key` is a DER SubjectPublicKeyInfo; `aad_of` makes the additional data of the wrapped key, which it covers.
    Raises ValueError if key or algorithm is not of RSA. About 0.1 ms of the calling thread.
    """
    if algorithm.oaep_hash is None:
        raise ValueError(f"{algorithm.name} does not seal with a public key")
    recipient = load_der_public_key(public_key)
    if not isinstance(recipient, RSAPublicKey):
        raise ValueError("the public key is not of RSA")
    key, nonce = os.urandom(_KEY_BYTES), os.urandom(algorithm.nonce_bytes)
    wrapped_key = recipient.encrypt(key, _oaep(algorithm.oaep_hash))
    return wrapped_key, nonce, AESGCM(key).encrypt(nonce, plaintext, aad_of(wrapped_key))


def public_key_der(modulus: bytes, public_exponent: bytes) -> bytes:
    """DER SubjectPublicKeyInfo (RFC 5280) of an RSA key, from big-endian numbers as PKCS#11 has them. Raises ValueError
    if they are not those of a key."""
    numbers = RSAPublicNumbers(int.from_bytes(public_exponent), int.from_bytes(modulus))
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _oaep(oaep_hash: OaepHash) -> padding.OAEP:
    chosen = _HASHES[oaep_hash]
    return padding.OAEP(mgf=padding.MGF1(chosen), algorithm=chosen, label=None)
