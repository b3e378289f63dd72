# SPDX-License-Identifier: Apache-2.0
"""A value that is not exactly what was encrypted for this place never becomes a Secret, and harms none that exists."""

import base64
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.conftest import OwnOperator
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import REACTION_SECONDS, Tenant, condition, decoded, refusal

pytestmark = pytest.mark.cluster

KEY_ID, KEY_VERSION, NONCE, BODY = slice(4, 20), slice(20, 24), slice(24, 36), slice(36, None)
"""Where things are in a decoded value (docs/format.md); the algorithm is byte 3."""
GOOD = b"the right value"

Craft = Callable[[Tenant, str], dict[str, Any]]
"""Makes the spec of the object of this name, bad in one way."""


def raw(tenant: Tenant, name: str) -> bytearray:
    return bytearray(base64.b64decode(tenant.encrypt(name, {"a": GOOD})["a"]))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def only(blob: str) -> dict[str, Any]:
    return {"encryptedData": {"a": blob}}


def replaced(part: slice, content: bytes) -> Craft:
    def craft(tenant: Tenant, name: str) -> dict[str, Any]:
        blob = raw(tenant, name)
        blob[part] = content
        return only(text(blob))

    return craft


def cut(length: int) -> Craft:
    return lambda tenant, name: only(text(raw(tenant, name)[:length]))


def sealed_otherwise(**different: Any) -> Craft:
    """Encrypted for another place than it is put in."""

    def craft(tenant: Tenant, name: str) -> dict[str, Any]:
        return {"encryptedData": tenant.encrypt(**{"name": name, "values": {"a": GOOD}} | different)}

    return craft


def opened_otherwise(**different: Any) -> Craft:
    """Put in another place than it was encrypted for."""
    return lambda tenant, name: {"encryptedData": tenant.encrypt(name, {"a": GOOD})} | different


def moved_to_another_data_key(tenant: Tenant, name: str) -> dict[str, Any]:
    return {"encryptedData": {"b": tenant.encrypt(name, {"a": GOOD})["a"]}}


def two_values_swapped(tenant: Tenant, name: str) -> dict[str, Any]:
    blobs = tenant.encrypt(name, {"a": GOOD, "b": b"other"})
    return {"encryptedData": {"a": blobs["b"], "b": blobs["a"]}}


def of_another_key(tenant: Tenant, name: str) -> dict[str, Any]:
    return {"encryptedData": tenant.encrypt(name, {"a": GOOD}, key=tenant.make_key())}


def without_padding(tenant: Tenant, name: str) -> dict[str, Any]:
    return only(tenant.encrypt(name, {"a": b"1"})["a"].removesuffix("="))


def with_bits_in_the_padding(tenant: Tenant, name: str) -> dict[str, Any]:
    """Another text that a lenient decoder takes for the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    blob = tenant.encrypt(name, {"a": b"1"})["a"]  # 53 bytes: one '=', two bits unused
    assert blob.endswith("=")
    assert not blob.endswith("==")
    return only(blob[:-2] + alphabet[alphabet.index(blob[-2]) + 1] + "=")


BAD = {
    "other-name": (sealed_otherwise(name="other"), "InvalidCiphertext"),
    "other-data-key": (moved_to_another_data_key, "InvalidCiphertext"),
    "swapped-data-keys": (two_values_swapped, "InvalidCiphertext"),
    "scope-widened-to-namespace": (opened_otherwise(scope="Namespace"), "InvalidCiphertext"),
    "scope-widened-to-cluster": (opened_otherwise(scope="Cluster"), "InvalidCiphertext"),
    "scope-narrowed": (sealed_otherwise(scope="Namespace"), "InvalidCiphertext"),
    "context-left-out": (sealed_otherwise(context={"team": "a"}), "InvalidCiphertext"),
    "context-added": (opened_otherwise(encryptionContext={"team": "a"}), "InvalidCiphertext"),
    "empty-context-value-added": (opened_otherwise(encryptionContext={"team": ""}), "InvalidCiphertext"),
    "nonce": (replaced(NONCE, bytes(12)), "InvalidCiphertext"),
    "ciphertext-and-tag": (replaced(BODY, os.urandom(31)), "InvalidCiphertext"),
    "last-byte-missing": (cut(-1), "InvalidCiphertext"),
    "tag-missing": (cut(-16), "InvalidCiphertext"),
    "ciphertext-too-short-for-a-tag": (cut(51), "InvalidCiphertext"),
    "half-a-header": (cut(12), "InvalidCiphertext"),
    "magic-alone": (cut(3), "InvalidCiphertext"),
    "byte-appended": (lambda tenant, name: only(text(raw(tenant, name) + b"\0")), "InvalidCiphertext"),
    "padding-missing": (without_padding, "InvalidCiphertext"),
    "not-canonical-base64": (with_bits_in_the_padding, "InvalidCiphertext"),
    "version-0": (replaced(KEY_VERSION, bytes(4)), "InvalidCiphertext"),
    "version-not-there": (replaced(KEY_VERSION, (2).to_bytes(4)), "KeyVersionNotFound"),
    "largest-version": (replaced(KEY_VERSION, b"\xff" * 4), "KeyVersionNotFound"),
    "unknown-key-id": (replaced(KEY_ID, uuid.uuid4().bytes), "IncorrectKey"),
    "another-key": (of_another_key, "IncorrectKey"),
    "algorithm-0": (replaced(slice(3, 4), b"\0"), "UnsupportedFormat"),
    "reserved-algorithm": (replaced(slice(3, 4), b"\4"), "UnsupportedFormat"),
    "algorithm-of-another-hsm": (replaced(slice(3, 4), b"\7"), "UnsupportedFormat"),
    "algorithm-with-a-wrapped-key": (replaced(slice(3, 4), b"\2"), "InvalidCiphertext"),
    "largest-algorithm": (replaced(slice(3, 4), b"\xff"), "UnsupportedFormat"),
    "key-not-there": (opened_otherwise(keyRef={"name": "no-such-key"}), "KeyNotFound"),
}


def refused_from_now_on(tenant: Tenant, name: str, reason: str) -> dict[str, Any]:
    """Wait for this reason; the object is Stalled then."""
    item = tenant.wait_reason(name, reason)
    assert condition(item, "Ready")["status"] == "False"
    assert condition(item, "Stalled")["status"] == "True"
    assert condition(item, "Reconciling")["status"] == "Unknown"
    return item


@pytest.mark.parametrize("case", BAD)
def test_bad_value_makes_no_secret_and_leaves_the_one_there_is(
    operator: OperatorProcess, tenant: Tenant, case: str
) -> None:
    craft, reason = BAD[case]
    tenant.grant(key="no-such-key")
    before = tenant.deliver("old", {"a": GOOD})
    for name in ("old", "new"):
        spec = craft(tenant, name)
        tenant.apply(name, encrypted_data=spec.pop("encryptedData"), **spec)
    for name in ("old", "new"):
        item = refused_from_now_on(tenant, name, reason)
        assert GOOD.decode() not in str(item["status"])
    assert tenant.secret("new") is None
    assert tenant.secret("old") == before
    # What is told before the token is asked: everything but what only the tag can tell.
    failed = [line for line in tenant.audit_lines(operator) if line["outcome"] != "Success"]
    assert {line["errorCode"] for line in failed} == {reason}
    if reason != "InvalidCiphertext":
        assert {line["ckr"] for line in failed} == {""}


@pytest.mark.usefixtures("operator")
def test_value_of_another_namespace_is_refused(tenant: Tenant, new_tenant: TenantFactory) -> None:
    tenant.apply("db", new_tenant().encrypt("db", {"a": GOOD}))
    refused_from_now_on(tenant, "db", "InvalidCiphertext")
    assert tenant.secret("db") is None


@pytest.mark.usefixtures("operator")
def test_every_single_flipped_bit_is_noticed(tenant: Tenant) -> None:
    blob = base64.b64decode(tenant.encrypt("any", {"a": b"12"}, scope="Namespace")["a"])
    expected: dict[str, set[str]] = {}
    for bit in range(3 * 8, len(blob) * 8):  # the magic is the CRD's to check
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        name = f"bit-{bit}"
        tenant.apply(name, {"a": text(flipped)}, scope="Namespace")
        match bit // 8:
            case 3:
                # Algorithm 3 has a wrapped key, whose length is not what stands there.
                expected[name] = {"InvalidCiphertext" if bit % 8 == 1 else "UnsupportedFormat"}
            case byte if byte < KEY_ID.stop:
                expected[name] = {"IncorrectKey"}
            case byte if byte < KEY_VERSION.stop:
                # Version 1 with its only bit gone is version 0, which no key ever has.
                expected[name] = {"InvalidCiphertext" if bit % 8 == 0 and byte == 23 else "KeyVersionNotFound"}
            case _:
                expected[name] = {"InvalidCiphertext"}
    collection = tenant.path("").rstrip("/")

    def reasons() -> dict[str, set[str]] | None:
        items = tenant.api("GET", collection)["items"]
        found = {item["metadata"]["name"]: {condition(item, "Ready")["reason"]} for item in items}
        return found if {""} not in found.values() else None

    assert wait_for(reasons, REACTION_SECONDS, "every object to be judged", interval=0.5) == expected
    assert tenant.api("GET", tenant.secret_path("").rstrip("/"))["items"] == []


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("scope", ["Strict", "Namespace", "Cluster"])
def test_one_bad_value_among_good_ones_writes_nothing(tenant: Tenant, scope: str) -> None:
    values = {f"value-{n}": f"{n}".encode() for n in range(8)}
    before = tenant.deliver("db", values, scope=scope)
    blobs = tenant.encrypt("db", dict.fromkeys(values, b"changed"), scope=scope)
    blobs["value-7"] = blobs["value-6"]
    tenant.apply("db", blobs, scope=scope)
    item = refused_from_now_on(tenant, "db", "InvalidCiphertext")
    assert "spec.encryptedData[value-7]" in condition(item, "Ready")["message"]
    assert tenant.secret("db") == before


@pytest.mark.usefixtures("operator")
def test_a_bad_object_heals_when_it_is_corrected(tenant: Tenant) -> None:
    tenant.apply("db", tenant.encrypt("other", {"a": GOOD}))
    refused_from_now_on(tenant, "db", "InvalidCiphertext")
    assert decoded(tenant.deliver("db", {"a": GOOD})) == {"a": GOOD}


BEFORE_ADMISSION = {
    "4097-bytes": text(b"SR1\1" + bytes(16) + b"\0\0\0\1" + bytes(12 + 4097 + 16)),
    "6217-characters": text(b"SR1\2" + bytes(4660)) + "A",
    "other-magic": text(b"SR2\1" + bytes(60)),
    "url-safe-alphabet": "U1Ix-_A=",
    "line-break": "U1Ix\nAA==",
    "empty": "",
}


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("case", BEFORE_ADMISSION)
def test_what_cannot_be_a_value_is_refused_at_admission(tenant: Tenant, case: str) -> None:
    manifest = tenant.manifest("db", {"a": BEFORE_ADMISSION[case]})
    refused = refusal(tenant.api, "POST", tenant.path("db").rpartition("/")[0], manifest)
    assert (refused.code, refused.reason) == (422, "Invalid")
    assert "spec.encryptedData" in str(refused)


@pytest.mark.usefixtures("operator")
def test_operator_refuses_what_its_own_limit_forbids(own_operator: OwnOperator, tenant: Tenant) -> None:
    """The CRD knows only the highest limit."""
    blobs = {
        name: tenant.encrypt(name, {"fits": b"x" * 100, "a": b"x" * size})
        for name, size in [("at", 100), ("over", 101)]
    }
    operator = own_operator(overrides={"secrets": {"maxPlaintextBytes": 100}})
    for name, encrypted in blobs.items():
        tenant.apply(name, encrypted)
    tenant.wait_ready("at")
    item = refused_from_now_on(tenant, "over", "PlaintextTooLarge")
    message = condition(item, "Ready")["message"]
    assert "spec.encryptedData[a] is 101 bytes, at most 100" in message
    assert tenant.secret("over") is None
    refused = [line for line in operator.audit_lines() if line["errorCode"] == "PlaintextTooLarge"]
    assert [(line["object"]["name"], line["verdict"]["decision"], line["ckr"]) for line in refused] == [
        ("over", "NotAsked", "")
    ]
