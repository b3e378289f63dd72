# SPDX-License-Identifier: Apache-2.0
"""RSA keys: anyone seals with the public key, the token alone opens, and no answer tells which step refused."""

import base64
import os
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from tests.operator import offline
from tests.operator.api import Api, Refused
from tests.operator.conftest import TenantFactory
from tests.operator.masterkeys import MasterKeys, new_name
from tests.operator.tenant import CRYPTO, Tenant, condition, decoded

pytestmark = [pytest.mark.cluster, pytest.mark.hsm, pytest.mark.usefixtures("operator")]

LENGTH, WRAPPED_KEY, NONCE, BODY = slice(24, 26), slice(26, 410), slice(410, 422), slice(422, None)
"""Where things are in a decoded value of an RSA_3072 key (docs/format.md)."""
GOOD = b"the right value"


Change = Callable[[bytearray], None]


@pytest.fixture
def keys(admin: Api) -> MasterKeys:
    return MasterKeys(admin)


@pytest.fixture
def tenant(new_tenant: TenantFactory) -> Tenant:
    """A tenant that may use the RSA_3072 key `tests-rsa`, ready."""
    made = new_tenant(key="tests-rsa", key_spec="RSA_3072")
    assert made.key == "tests-rsa"
    return made


@pytest.fixture
def status(tenant: Tenant, keys: MasterKeys) -> dict[str, Any]:
    """Status of that key: all that whoever seals offline has."""
    found: dict[str, Any] = keys.get(tenant.key)["status"]
    return found


def sealed(tenant: Tenant, status: dict[str, Any], name: str, data_key: str, plaintext: bytes, **options: Any) -> str:
    return offline.seal(status, plaintext, namespace=tenant.namespace, name=name, data_key=data_key, **options)


def test_an_rsa_key_publishes_what_it_takes_to_seal_and_says_that_anyone_can(
    tenant: Tenant, keys: MasterKeys, kubectl: Kubectl, admin: Api
) -> None:
    key = keys.get(tenant.key)
    status = key["status"]
    assert status["oaepHash"] == "sha1"  # all that SoftHSM can
    assert [entry["algorithm"] for entry in status["versions"]] == ["RSA_OAEP_SHA1_AES_256_GCM"]
    assert offline.public_key(status).key_size == 3072
    unauthenticated = condition(key, "UnauthenticatedSealing")
    assert (unauthenticated["status"], unauthenticated["reason"]) == ("True", "AsymmetricKey")
    assert (condition(key, "Ready")["status"], condition(key, "Stalled")["status"]) == ("True", "Unknown")
    kubectl("wait", "--for=condition=Ready", "cmk/tests-rsa", "--timeout=5s")
    assert status["hsm"]["neverExtractable"] is True

    shown = admin("GET", f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}")
    assert shown["spec"] == {"keySpec": "RSA_3072"}
    assert shown["status"] == {
        field: status[field] for field in ("keyId", "state", "currentVersion", "publicKey", "oaepHash")
    }


def test_what_the_api_sealed_arrives_and_costs_the_ledger_nothing(
    tenant: Tenant, status: dict[str, Any], admin: Api
) -> None:
    values = {"empty": b"", "limit": os.urandom(4096), "every-byte": bytes(range(256))}
    secret = tenant.deliver("db", values, encryptionContext={"team": "payments"})
    assert decoded(secret) == values
    assert admin.find(f"/api/v1/namespaces/strongroom/configmaps/strongroom-ledger-{status['keyId']}") is None


def test_what_was_sealed_offline_with_the_public_key_arrives(tenant: Tenant, status: dict[str, Any]) -> None:
    values = {"empty": b"", "one": b"1", "limit": os.urandom(4096)}
    context = {"team": "payments", "équipe": "ключ", "a": ""}
    blobs = {key: sealed(tenant, status, "db", key, value, context=context) for key, value in values.items()}
    tenant.apply("db", blobs, encryptionContext=context)
    tenant.wait_ready("db")
    assert tenant.values("db") == values


@pytest.mark.parametrize("scope", ["Strict", "Namespace", "Cluster"])
def test_every_scope_can_be_sealed_offline(tenant: Tenant, status: dict[str, Any], scope: str) -> None:
    tenant.apply("db", {"a": sealed(tenant, status, "db", "a", GOOD, scope=scope)}, scope=scope)
    tenant.wait_ready("db")
    assert tenant.values("db") == {"a": GOOD}


def test_the_api_opens_what_was_sealed_offline(tenant: Tenant, status: dict[str, Any], admin: Api) -> None:
    assert decrypt(admin, tenant, sealed(tenant, status, "db", "a", GOOD)) == GOOD


def test_who_may_not_use_the_key_gets_nothing_sealed_or_not(
    tenant: Tenant, status: dict[str, Any], new_tenant: TenantFactory
) -> None:
    denied = new_tenant(key=tenant.key, grant=False, key_spec="RSA_3072")
    denied.apply("db", {"a": sealed(denied, status, "db", "a", GOOD)})
    denied.wait_reason("db", "AccessDenied")
    assert denied.secret("db") is None


def test_a_key_of_4096_bits_takes_the_longest_values_there_are(new_tenant: TenantFactory, keys: MasterKeys) -> None:
    tenant = new_tenant(key="tests-rsa-4096", key_spec="RSA_4096")
    found = keys.get(tenant.key)["status"]
    assert offline.public_key(found).key_size == 4096
    value = os.urandom(4096)
    blob = sealed(tenant, found, "db", "a", value)
    assert len(blob) == 6216
    tenant.apply("db", {"a": blob})
    tenant.wait_ready("db")
    assert tenant.values("db") == {"a": value}


def test_a_key_made_again_finds_its_own_pair_and_opens_what_was_sealed_before(
    new_tenant: TenantFactory, keys: MasterKeys
) -> None:
    tenant = new_tenant(key=new_name(), key_spec="RSA_3072")
    before = keys.get(tenant.key)["status"]
    blob = sealed(tenant, before, "db", "a", GOOD)
    keys.delete(tenant.key)
    keys.create(tenant.key, keySpec="RSA_3072")
    after = keys.wait_ready(tenant.key)["status"]
    assert (after["keyId"], after["publicKey"]) == (before["keyId"], before["publicKey"])
    tenant.apply("db", {"a": blob})
    tenant.wait_ready("db")
    assert tenant.values("db") == {"a": GOOD}
    keys.delete(tenant.key)


@pytest.mark.parametrize(("made_as", "wanted"), [("AES_256", "RSA_3072"), ("RSA_3072", "AES_256")])
def test_material_of_another_kind_is_never_taken_for_the_key(keys: MasterKeys, made_as: str, wanted: str) -> None:
    name = new_name()
    keys.create(name, keySpec=made_as)
    keys.wait_ready(name)
    keys.delete(name)
    keys.create(name, keySpec=wanted)
    refused = keys.wait_reason(name, "InvalidKeyUsage")
    assert condition(refused, "Stalled")["status"] == "True"
    assert all(spec in condition(refused, "Ready")["message"] for spec in (made_as, wanted))
    assert "keyId" not in refused["status"]
    keys.delete(name)


# Refusals


def flip(part: slice, position: int = 0) -> Change:
    def change(raw: bytearray) -> None:
        raw[range(len(raw))[part][position]] ^= 1

    return change


def put(part: slice, content: bytes) -> Change:
    def change(raw: bytearray) -> None:
        raw[part] = content

    return change


def nothing(_: bytearray) -> None:
    """It is sealed otherwise than it is used."""


STRANGER = generate_private_key(public_exponent=65537, key_size=3072).public_key()
BAD: dict[str, tuple[Change, dict[str, Any]]] = {
    "wrapped-key-first-byte": (flip(WRAPPED_KEY), {}),
    "wrapped-key-last-byte": (flip(WRAPPED_KEY, -1), {}),
    "wrapped-key-zero": (put(WRAPPED_KEY, bytes(384)), {}),
    "wrapped-key-above-the-modulus": (put(WRAPPED_KEY, b"\xff" * 384), {}),
    "wrapped-key-random": (put(WRAPPED_KEY, bytes([1]) + os.urandom(383)), {}),
    "wrapped-to-someone-else": (nothing, {"to": STRANGER}),
    "length": (put(LENGTH, (512).to_bytes(2)), {}),
    "nonce": (flip(NONCE), {}),
    "body": (flip(BODY), {}),
    "tag": (flip(BODY, -1), {}),
    "last-byte-missing": (put(slice(-1, None), b""), {}),
    "other-context": (nothing, {"context": {"team": "a"}}),
    "other-name": (nothing, {"name": "other"}),
    "other-data-key": (nothing, {"data_key": "b"}),
    "other-scope": (nothing, {"scope": "Namespace"}),
}


def bad_value(tenant: Tenant, status: dict[str, Any], which: str) -> str:
    change, otherwise = BAD[which]
    options = {"name": "db", "data_key": "a"} | otherwise
    raw = bytearray(base64.b64decode(offline.seal(status, GOOD, namespace=tenant.namespace, **options)))
    change(raw)
    return base64.b64encode(raw).decode()


def decrypt(api: Api, tenant: Tenant, blob: str) -> bytes:
    request = {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "DecryptRequest",
        "spec": {"scope": "Strict", "name": "db", "encryptedData": {"a": blob}},
    }
    answer = api("POST", f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}/decrypt", request)
    return base64.b64decode(answer["status"]["values"]["a"])


def test_no_answer_and_no_record_tells_which_step_refused(
    tenant: Tenant, status: dict[str, Any], admin: Api, operator: OperatorProcess
) -> None:
    answers, bodies = set(), []
    for which in BAD:
        blob = bad_value(tenant, status, which)
        with pytest.raises(Refused) as caught:
            decrypt(admin, tenant, blob)
        answers.add((caught.value.code, caught.value.reason, str(caught.value)))
        bodies.append({key: value for key, value in caught.value.body.items() if key != "metadata"})
    assert [reason for _, reason, _ in answers] == ["InvalidCiphertext"]
    assert all(body == bodies[0] for body in bodies)
    records = [
        line for line in operator.audit_lines() if (line.get("permission") or {}).get("namespace") == tenant.namespace
    ]
    assert len(records) == len(BAD)
    assert {(line["outcome"], line["errorCode"], line["ckr"]) for line in records} == {
        ("Failure", "InvalidCiphertext", "")
    }
    assert decrypt(admin, tenant, sealed(tenant, status, "db", "a", GOOD)) == GOOD


@pytest.mark.parametrize("which", ["wrapped-key-first-byte", "wrapped-to-someone-else", "body", "other-context"])
def test_a_bad_value_becomes_no_secret_and_harms_none(tenant: Tenant, status: dict[str, Any], which: str) -> None:
    tenant.apply("db", {"a": bad_value(tenant, status, which)})
    refused = tenant.wait_reason("db", "InvalidCiphertext")
    assert condition(refused, "Stalled")["status"] == "True"
    assert tenant.secret("db") is None
    assert decoded(tenant.deliver("good", {"a": GOOD})) == {"a": GOOD}
