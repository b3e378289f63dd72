# SPDX-License-Identifier: Apache-2.0
"""The vectors, docs/format.md and the operator's envelope say the same."""

import hashlib
import hmac
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from strongroom.envelope import format as envelope
from strongroom.envelope.aad import additional_data
from strongroom.envelope.format import Blob, pack_header
from strongroom.errors import Reason, StrongroomError
from strongroom.model.algorithms import Algorithm, OaepHash
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.limits import MAX_PLAINTEXT_BYTES
from tests.vectors import build

DOCUMENT: dict[str, Any] = json.loads(build.FILE.read_text(encoding="ascii"))
FORMAT = Path(build.__file__).parents[2] / "docs" / "format.md"

DOCUMENT_FIELDS = {"format", "formatVersion", "failureClasses", "warning", "privateKeys", "good", "bad"}
GOOD_FIELDS = {"name", "algorithm", "keyId", "version", "nonce", "plaintext", "binding", "aad", "blob"}
BAD_FIELDS = {"name", "expect", "algorithm", "keyId", "versions", "binding", "blob"}
KEY_FIELDS = {
    Algorithm.AES_256_GCM: {"key"},
    Algorithm.RSA_OAEP_SHA1_AES_256_GCM: {"privateKey"},
    Algorithm.RSA_OAEP_SHA256_AES_256_GCM: {"privateKey"},
    Algorithm.AES_256_CBC_HMAC_SHA256: {"key", "authenticationKey"},
    Algorithm.AES_256_GCM_IV16: {"key"},
}
RSA_GOOD_FIELDS = {"contentKey", "wrappedKey"}
OPTIONAL_BAD_FIELDS = {"sealedFor"}
BINDING_FIELDS = {"purpose", "scope", "namespace", "name", "dataKey", "encryptionContext"}

PARSE_REASONS = {
    "malformed": Reason.INVALID_CIPHERTEXT,
    "unsupported": Reason.UNSUPPORTED_FORMAT,
    "too-large": Reason.PLAINTEXT_TOO_LARGE,
}
KEY_CLASSES = {"wrong-key", "wrong-version"}
TAG_CLASSES = {"forged", "wrong-context", "wrong-place", "wrong-purpose"}
SEALED_ELSEWHERE = {"wrong-context", "wrong-place", "wrong-purpose"}


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def read_binding(raw: dict[str, Any]) -> Binding:
    assert raw.keys() == BINDING_FIELDS
    return Binding(
        Purpose(raw["purpose"]),
        Scope(raw["scope"]),
        raw["namespace"],
        raw["name"],
        raw["dataKey"],
        EncryptionContext.parse(raw["encryptionContext"]),
    )


PRIVATE_KEYS = {
    name: serialization.load_pem_private_key(pem.encode(), None) for name, pem in DOCUMENT["privateKeys"].items()
}
OAEP_HASHES: dict[OaepHash, hashes.HashAlgorithm] = {OaepHash.SHA1: hashes.SHA1(), OaepHash.SHA256: hashes.SHA256()}


class ForgedError(Exception):
    """It does not decrypt."""


def decrypt(blob: Blob, vector: dict[str, Any], binding: Binding) -> bytes:
    """As docs/format.md says, with the keys of the vector."""
    data = additional_data(blob.header, binding)
    try:
        if blob.algorithm.oaep_hash:
            return AESGCM(unwrap(blob, vector["privateKey"])).decrypt(blob.nonce, blob.body, data)
        if blob.algorithm is Algorithm.AES_256_CBC_HMAC_SHA256:
            return decrypt_cbc(blob, bytes.fromhex(vector["key"]), bytes.fromhex(vector["authenticationKey"]), data)
        return AESGCM(bytes.fromhex(vector["key"])).decrypt(blob.nonce, blob.body, data)
    except (InvalidTag, ValueError):
        raise ForgedError from None


def unwrap(blob: Blob, private_key: str) -> bytes:
    assert blob.algorithm.oaep_hash
    chosen, key = OAEP_HASHES[blob.algorithm.oaep_hash], PRIVATE_KEYS[private_key]
    assert isinstance(key, RSAPrivateKey)
    content_key = key.decrypt(blob.wrapped_key, OAEP(mgf=MGF1(chosen), algorithm=chosen, label=None))
    if len(content_key) != 32:
        raise ForgedError
    return content_key


def decrypt_cbc(blob: Blob, key: bytes, authentication_key: bytes, data: bytes) -> bytes:
    ciphertext, tag = blob.body[:-32], blob.body[-32:]
    message = data + blob.nonce + ciphertext + (8 * len(data)).to_bytes(8)
    if not hmac.compare_digest(hmac.digest(authentication_key, hashlib.sha256(message).digest(), "sha256"), tag):
        raise ForgedError
    decryptor, unpadder = Cipher(AES256(key), CBC(blob.nonce)).decryptor(), PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()


def encrypt(blob: Blob, vector: dict[str, Any], plaintext: bytes, data: bytes) -> bytes:
    """Ciphertext and tag, with the nonce of the blob."""
    if blob.algorithm is not Algorithm.AES_256_CBC_HMAC_SHA256:
        key = vector["contentKey"] if blob.algorithm.oaep_hash else vector["key"]
        return AESGCM(bytes.fromhex(key)).encrypt(blob.nonce, plaintext, data)
    encryptor, padder = Cipher(AES256(bytes.fromhex(vector["key"])), CBC(blob.nonce)).encryptor(), PKCS7(128).padder()
    ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()
    digest = hashlib.sha256(data + blob.nonce + ciphertext + (8 * len(data)).to_bytes(8)).digest()
    return ciphertext + hmac.digest(bytes.fromhex(vector["authenticationKey"]), digest, "sha256")


def test_the_file_is_what_build_py_makes() -> None:
    assert build.FILE.read_text(encoding="ascii") == build.build(), "run: python -m tests.vectors.build"


def test_the_file_holds_no_unknown_field_class_or_repeated_name() -> None:
    assert DOCUMENT.keys() == DOCUMENT_FIELDS
    assert (DOCUMENT["format"], DOCUMENT["formatVersion"]) == ("strongroom blob", 1)
    assert DOCUMENT["failureClasses"].keys() == PARSE_REASONS.keys() | KEY_CLASSES | TAG_CLASSES
    for vector in DOCUMENT["good"]:
        algorithm = Algorithm(vector["algorithm"])
        made_with = RSA_GOOD_FIELDS if algorithm.oaep_hash else set()
        assert vector.keys() == GOOD_FIELDS | KEY_FIELDS[algorithm] | made_with, vector["name"]
    for vector in DOCUMENT["bad"]:
        expected = BAD_FIELDS | KEY_FIELDS[Algorithm(vector["algorithm"])]
        assert vector.keys() - OPTIONAL_BAD_FIELDS == expected, vector["name"]
        assert vector["expect"] in DOCUMENT["failureClasses"], vector["name"]
        assert ("sealedFor" in vector) == (vector["expect"] in SEALED_ELSEWHERE), vector["name"]
    names = [vector["name"] for vector in DOCUMENT["good"] + DOCUMENT["bad"]]
    assert len(names) == len(set(names))
    assert "test key" in DOCUMENT["warning"]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_algorithm_has_vectors_of_every_failure_class(algorithm: Algorithm) -> None:
    assert [vector for vector in DOCUMENT["good"] if vector["algorithm"] == algorithm]
    found = {vector["expect"] for vector in DOCUMENT["bad"] if vector["algorithm"] == algorithm}
    if algorithm is Algorithm.RSA_OAEP_SHA1_AES_256_GCM:  # the others are those of SHA-256
        assert found == {*SEALED_ELSEWHERE, "forged", "unsupported"}
    else:
        assert found == DOCUMENT["failureClasses"].keys()


@pytest.mark.parametrize("vector", named(DOCUMENT["good"]))
def test_a_good_vector_decrypts_and_is_made_again_byte_for_byte(vector: dict[str, Any]) -> None:
    binding = read_binding(vector["binding"])
    ref = KeyVersionRef(KeyId(uuid.UUID(vector["keyId"])), KeyVersion(vector["version"]))
    nonce, plaintext = bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["plaintext"])

    parsed = envelope.parse(vector["blob"], where="the vector")
    assert (parsed.algorithm, parsed.key, parsed.nonce) == (vector["algorithm"], ref, nonce)
    assert len(plaintext) in parsed.plaintext_sizes
    assert parsed.wrapped_key.hex() == vector.get("wrappedKey", "")
    assert additional_data(parsed.header, binding).hex() == vector["aad"]
    assert decrypt(parsed, vector, binding) == plaintext

    if "contentKey" in vector:  # wrapped anew it would be other bytes: OAEP is random
        assert unwrap(parsed, vector["privateKey"]).hex() == vector["contentKey"]
    header = pack_header(parsed.algorithm, ref, parsed.wrapped_key)
    body = encrypt(parsed, vector, plaintext, additional_data(header, binding))
    assert Blob(parsed.algorithm, ref, nonce, body, parsed.wrapped_key).serialise() == vector["blob"]


@pytest.mark.parametrize("vector", named(DOCUMENT["bad"]))
def test_a_bad_vector_fails_with_its_class(vector: dict[str, Any]) -> None:
    assert failure_class(vector) == vector["expect"]


def failure_class(vector: dict[str, Any]) -> str:
    """The steps of docs/format.md, in their order."""
    try:
        blob = envelope.parse(vector["blob"], where="the vector")
    except StrongroomError as error:
        return next(name for name, reason in PARSE_REASONS.items() if reason is error.reason)
    if blob.key.key_id != uuid.UUID(vector["keyId"]):
        return "wrong-key"
    if blob.key.version not in vector["versions"]:
        return "wrong-version"
    if blob.algorithm != vector["algorithm"]:
        return "unsupported"
    if "privateKey" in vector and len(blob.wrapped_key) * 8 != PRIVATE_KEYS[vector["privateKey"]].key_size:  # type: ignore[union-attr]
        return "forged"
    used = read_binding(vector["binding"])
    try:
        if len(decrypt(blob, vector, used)) > MAX_PLAINTEXT_BYTES:
            return "too-large"
    except ForgedError:
        pass
    else:
        raise AssertionError("it decrypts")
    if "sealedFor" not in vector:
        return "forged"
    sealed_for = read_binding(vector["sealedFor"])
    decrypt(blob, vector, sealed_for)  # whole and genuine: only the binding differs
    if sealed_for.purpose is not used.purpose:
        return "wrong-purpose"
    return "wrong-context" if sealed_for.context != used.context else "wrong-place"


def test_the_worked_example_in_the_specification_is_true() -> None:
    vector = next(vector for vector in DOCUMENT["good"] if vector["name"] == "worked-example")
    shown = specification_blocks()
    assert hexadecimal(shown["AES key"]) == vector["key"]
    assert hexadecimal(shown["plaintext"]) == vector["plaintext"]
    assert hexadecimal(shown["header"]) == pack_header(
        Algorithm.AES_256_GCM, KeyVersionRef(KeyId(uuid.UUID(vector["keyId"])), KeyVersion(vector["version"]))
    ).hex()  # fmt: skip
    assert hexadecimal(shown["additional data"]) == vector["aad"]
    assert hexadecimal(shown["nonce"]) == vector["nonce"]
    parsed = envelope.parse(vector["blob"], where="the vector")
    assert hexadecimal(shown["ciphertext and tag"]) == parsed.body.hex()
    assert "".join(shown["blob"].split()) == vector["blob"]


def test_the_specification_names_every_failure_class_purpose_scope_and_reason() -> None:
    text = FORMAT.read_text(encoding="utf-8")
    reasons = {*PARSE_REASONS.values(), Reason.INCORRECT_KEY, Reason.KEY_VERSION_NOT_FOUND}
    words = [*DOCUMENT["failureClasses"], *Purpose, *Scope, *reasons]
    assert [word for word in words if f"`{word}`" not in text] == []


def specification_blocks() -> dict[str, str]:
    """The fenced blocks of the worked example by the caption before them."""
    example = FORMAT.read_text(encoding="utf-8").partition("## Worked example")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\*\*(.+?)\*\*[^\n]*\n\n```text\n(.*?)```", example, re.M | re.S))


def hexadecimal(block: str) -> str:
    """The hexadecimal digits of a block; what stands behind a `#` is a remark."""
    return "".join("".join(line.partition("#")[0].split()) for line in block.splitlines())
