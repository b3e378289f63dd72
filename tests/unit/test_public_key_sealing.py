# SPDX-License-Identifier: Apache-2.0
"""What is sealed with a public key opens with the private one, by `cryptography` alone."""

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.envelope.sealing import seal_with_public_key
from strongroom.model.algorithms import Algorithm

SHA1, SHA256 = Algorithm.RSA_OAEP_SHA1_AES_256_GCM, Algorithm.RSA_OAEP_SHA256_AES_256_GCM
HASHES: dict[Algorithm, hashes.HashAlgorithm] = {SHA1: hashes.SHA1(), SHA256: hashes.SHA256()}


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


@pytest.fixture(scope="module")
def public_key(private_key: rsa.RSAPrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def unwrap(private_key: rsa.RSAPrivateKey, algorithm: Algorithm, wrapped_key: bytes) -> bytes:
    chosen = HASHES[algorithm]
    return private_key.decrypt(wrapped_key, padding.OAEP(mgf=padding.MGF1(chosen), algorithm=chosen, label=None))


@pytest.mark.parametrize("algorithm", HASHES)
@pytest.mark.parametrize("size", [0, 1, 4096])
def test_the_private_key_opens_it_and_the_wrapped_key_is_covered(
    private_key: rsa.RSAPrivateKey, public_key: bytes, algorithm: Algorithm, size: int
) -> None:
    plaintext = bytes(range(256)) * 16
    wrapped, nonce, body = seal_with_public_key(public_key, algorithm, plaintext[:size], lambda key: b"aad" + key)
    key = unwrap(private_key, algorithm, wrapped)
    assert (len(wrapped), len(key), len(nonce), len(body)) == (384, 32, 12, size + 16)
    assert AESGCM(key).decrypt(nonce, body, b"aad" + wrapped) == plaintext[:size]
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(nonce, body, b"aad" + bytes(384))


def test_every_value_has_a_key_and_a_nonce_of_its_own(private_key: rsa.RSAPrivateKey, public_key: bytes) -> None:
    sealed = [seal_with_public_key(public_key, SHA256, b"same", lambda key: key) for _ in range(20)]
    keys = {unwrap(private_key, SHA256, wrapped) for wrapped, _, _ in sealed}
    assert (len(keys), len({nonce for _, nonce, _ in sealed})) == (20, 20)


@pytest.mark.parametrize(
    "algorithm", [algorithm for algorithm in Algorithm if algorithm.oaep_hash is None], ids=lambda value: value.name
)
def test_an_algorithm_without_a_public_key_is_refused(public_key: bytes, algorithm: Algorithm) -> None:
    with pytest.raises(ValueError, match=algorithm.name):
        seal_with_public_key(public_key, algorithm, b"", lambda key: key)


def test_a_key_that_is_not_of_rsa_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(ValueError, match="not of RSA"):
        seal_with_public_key(
            other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), SHA256, b"", lambda key: key
        )
