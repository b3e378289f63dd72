# SPDX-License-Identifier: Apache-2.0
"""The vectors, docs/format.md and the operator's envelope say the same."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.envelope import format as envelope
from strongroom.envelope.aad import additional_data
from strongroom.envelope.format import Blob, pack_header
from strongroom.errors import Reason, StrongroomError
from strongroom.model.algorithms import Algorithm
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from tests.vectors import build

DOCUMENT: dict[str, Any] = json.loads(build.FILE.read_text(encoding="ascii"))
FORMAT = Path(build.__file__).parents[2] / "docs" / "format.md"

DOCUMENT_FIELDS = {"format", "formatVersion", "failureClasses", "good", "bad"}
GOOD_FIELDS = {"name", "key", "keyId", "version", "nonce", "plaintext", "binding", "aad", "blob"}
BAD_FIELDS = {"name", "expect", "key", "keyId", "versions", "binding", "blob"}
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


def decrypt(blob: Blob, key: str, binding: Binding) -> bytes:
    return AESGCM(bytes.fromhex(key)).decrypt(blob.nonce, blob.body, additional_data(blob.header, binding))


def test_the_file_is_what_build_py_makes() -> None:
    assert build.FILE.read_text(encoding="ascii") == build.build(), "run: python tests/vectors/build.py"


def test_the_file_holds_no_unknown_field_class_or_repeated_name() -> None:
    assert DOCUMENT.keys() == DOCUMENT_FIELDS
    assert (DOCUMENT["format"], DOCUMENT["formatVersion"]) == ("strongroom blob", 1)
    assert DOCUMENT["failureClasses"].keys() == PARSE_REASONS.keys() | KEY_CLASSES | TAG_CLASSES
    for vector in DOCUMENT["good"]:
        assert vector.keys() == GOOD_FIELDS, vector["name"]
    for vector in DOCUMENT["bad"]:
        assert vector.keys() - OPTIONAL_BAD_FIELDS == BAD_FIELDS, vector["name"]
        assert vector["expect"] in DOCUMENT["failureClasses"], vector["name"]
        assert ("sealedFor" in vector) == (vector["expect"] in SEALED_ELSEWHERE), vector["name"]
    names = [vector["name"] for vector in DOCUMENT["good"] + DOCUMENT["bad"]]
    assert len(names) == len(set(names))
    assert {vector["expect"] for vector in DOCUMENT["bad"]} == DOCUMENT["failureClasses"].keys()


@pytest.mark.parametrize("vector", named(DOCUMENT["good"]))
def test_a_good_vector_decrypts_and_is_made_again_byte_for_byte(vector: dict[str, Any]) -> None:
    binding = read_binding(vector["binding"])
    ref = KeyVersionRef(KeyId(uuid.UUID(vector["keyId"])), KeyVersion(vector["version"]))
    nonce, plaintext = bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["plaintext"])

    parsed = envelope.parse(vector["blob"], where="the vector")
    assert (parsed.key, parsed.nonce, parsed.plaintext_size) == (ref, nonce, len(plaintext))
    assert additional_data(parsed.header, binding).hex() == vector["aad"]
    assert decrypt(parsed, vector["key"], binding) == plaintext

    header = pack_header(Algorithm.AES_256_GCM, ref)
    body = AESGCM(bytes.fromhex(vector["key"])).encrypt(nonce, plaintext, additional_data(header, binding))
    assert Blob(Algorithm.AES_256_GCM, ref, nonce, body).serialise() == vector["blob"]


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
    with pytest.raises(InvalidTag):
        decrypt(blob, vector["key"], read_binding(vector["binding"]))
    if "sealedFor" not in vector:
        return "forged"
    sealed_for = read_binding(vector["sealedFor"])
    decrypt(blob, vector["key"], sealed_for)  # whole and genuine: only the binding differs
    used = read_binding(vector["binding"])
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
