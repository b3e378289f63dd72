# SPDX-License-Identifier: Apache-2.0
"""Decryption for a recipient: the answer is a JWE that only the recipient opens."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.apiserver.harness import GROUP_VERSION, Client, Harness, decrypt_request

DECRYPT = f"{GROUP_VERSION}/namespaces/shop/keys/prod/decrypt"


def _pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _open(jwe: str, key: rsa.RSAPrivateKey) -> bytes:
    """RFC 7516 section 5.2, written from the standard, independent of the code under test."""
    header, encrypted_key, nonce, ciphertext, tag = jwe.split(".")
    assert json.loads(_raw(header)) == {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    content_key = key.decrypt(_raw(encrypted_key), oaep)
    assert (len(content_key), len(_raw(nonce)), len(_raw(tag))) == (32, 12, 16)
    return AESGCM(content_key).decrypt(_raw(nonce), _raw(ciphertext) + _raw(tag), header.encode())


@pytest.fixture(scope="module")
def recipient() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


async def test_values_are_wrapped_for_the_recipient_alone(
    api: Harness, client: Client, recipient: rsa.RSAPrivateKey
) -> None:
    blobs = {name: f"U1Ix{base64.b64encode(value).decode()}" for name, value in (("a", b""), ("b", b"s3cret"))}
    body = decrypt_request(encryptedData=blobs, recipientPublicKey=_pem(recipient.public_key()))

    answer = await client("POST", DECRYPT, body=body)

    status = answer.json["status"]
    assert answer.status == 201
    assert set(status) == {"keyVersions", "encryptedValues"}
    assert {name: _open(jwe, recipient) for name, jwe in status["encryptedValues"].items()} == {
        "a": b"",
        "b": b"s3cret",
    }
    assert base64.b64encode(b"s3cret") not in answer.body
    assert api.service.released[1].reveal() == bytes(6)


async def test_wrapped_value_is_authenticated(client: Client, recipient: rsa.RSAPrivateKey) -> None:
    answer = await client("POST", DECRYPT, body=decrypt_request(recipientPublicKey=_pem(recipient.public_key())))
    pieces = answer.json["status"]["encryptedValues"]["password"].split(".")
    pieces[4] = ("A" if pieces[4][0] != "A" else "B") + pieces[4][1:]

    with pytest.raises(InvalidTag):
        _open(".".join(pieces), recipient)


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param("garbage", id="garbage"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", id="no-der"),
        pytest.param(_pem(ec.generate_private_key(ec.SECP256R1()).public_key()), id="elliptic-curve"),
        pytest.param(_pem(ed25519.Ed25519PrivateKey.generate().public_key()), id="ed25519"),
        pytest.param(_pem(rsa.generate_private_key(65537, 1024).public_key()), id="rsa-1024"),
    ],
)
async def test_keys_that_are_not_accepted(api: Harness, client: Client, pem: str) -> None:
    answer = await client("POST", DECRYPT, body=decrypt_request(recipientPublicKey=pem))

    assert (answer.status, answer.json["details"]["causes"][0]["field"]) == (400, "spec.recipientPublicKey")
    assert api.service.asked == [], "nothing is decrypted for a recipient that cannot be used"
