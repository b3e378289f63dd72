# SPDX-License-Identifier: Apache-2.0
"""A CustomerMasterKey's material: made once, whatever crashes; found again; never taken from others; never deleted."""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.controlplane import ControlPlane
from testbed.operator import OperatorProcess
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused, connect
from tests.operator.conftest import TenantFactory
from tests.operator.masterkeys import MasterKeys, Material, Outsider, cka_id, new_name
from tests.operator.tenant import CRYPTO, KMS, Tenant, condition

pytestmark = [pytest.mark.cluster, pytest.mark.hsm, pytest.mark.usefixtures("operator")]

BLOCK = 2**16
"""Encryptions that a process reserves in the ledger at a time."""


@pytest.fixture
def keys(admin: Api) -> Iterator[MasterKeys]:
    made = MasterKeys(admin)
    yield made
    made.delete_all_made()


@pytest.fixture
def outsider(token: SoftHsmToken) -> Outsider:
    return Outsider(token)


def encrypt(api: Api, key: str, value: str = "YQ==") -> str:
    """A value under the key, good everywhere."""
    request = {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "EncryptRequest",
        "spec": {"scope": "Cluster", "values": {"a": value}},
    }
    answer = api("POST", f"{CRYPTO}/namespaces/default/keys/{key}/encrypt", request)
    return str(answer["status"]["encryptedData"]["a"])


def decrypt(api: Api, key: str, blob: str) -> str:
    request = {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "DecryptRequest",
        "spec": {"scope": "Cluster", "encryptedData": {"a": blob}},
    }
    answer = api("POST", f"{CRYPTO}/namespaces/default/keys/{key}/decrypt", request)
    return str(answer["status"]["values"]["a"])


def reason_of(call: Callable[[], Any]) -> str:
    """Reason with which a call is refused; empty if it is not."""
    try:
        call()
    except Refused as error:
        return error.reason
    return ""


def events_about(api: Api, name: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api("GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
    return [item for item in items if item["regarding"]["name"] == name]


def states_until_ready(control_plane: ControlPlane, name: str, create: Callable[[], Any]) -> list[dict[str, Any]]:
    """Every status that the API server shows of a key, from its creation to its being ready."""
    seen = []
    with connect(control_plane.kubeconfig) as api:
        path = f"{KMS}/customermasterkeys?watch=true&timeoutSeconds=30&fieldSelector=metadata.name%3D{name}"
        api.connection.request("GET", path, headers=dict(api.headers))
        answer = api.connection.getresponse()
        create()
        while line := answer.readline():
            status = json.loads(line)["object"]["status"]
            seen.append(status)
            if status.get("currentVersion"):
                return seen
    raise AssertionError(f"the key {name} did not become ready: {seen}")


# Creation


def test_the_intent_is_recorded_before_the_one_key_is_made(
    control_plane: ControlPlane, keys: MasterKeys, outsider: Outsider
) -> None:
    name = new_name()
    statuses = states_until_ready(control_plane, name, lambda: keys.create(name))
    intents = [status for status in statuses if "pendingVersion" in status]
    ready = keys.wait_ready(name)["status"]
    assert intents, "the intent was written before the key was published"
    assert {intent["pendingVersion"]["keyId"] for intent in intents} == {ready["keyId"]}
    assert {intent["state"] for intent in intents} == {"Creating"}
    assert "pendingVersion" not in ready
    assert ready["hsm"] == {
        "name": "default",
        "manufacturer": "SoftHSM project",
        "model": "SoftHSM v2",
        "serial": ready["hsm"]["serial"],
        "firmware": "2.6",
        "neverExtractable": True,
        "certification": "none",
    }
    assert ready["hsm"]["serial"]
    (material,) = outsider.materials(name=name)
    assert material.cka_id == cka_id(ready["keyId"])
    assert outsider.materials(key_id=ready["keyId"]) == [material]
    assert [(entry["version"], entry["state"]) for entry in ready["versions"]] == [(1, "Primary")]


def _intent_recorded(keys: MasterKeys, name: str, objects: Callable[[], int]) -> None:
    wait_for(lambda: "pendingVersion" in keys.get(name)["status"], 30, "the intent", interval=0)


def _material_made(keys: MasterKeys, name: str, objects: Callable[[], int]) -> None:
    before = objects()
    wait_for(lambda: objects() > before, 30, "the material", interval=0)


def _at_random(keys: MasterKeys, name: str, objects: Callable[[], int]) -> None:
    # A crash keeps to no moment; how often is what counts.
    time.sleep(random.uniform(0, 0.06))


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(_intent_recorded, id="intent-recorded"),
        pytest.param(_material_made, id="material-made"),
        *(pytest.param(_at_random, id=f"at-random-{number}") for number in range(1, 5)),
    ],
)
def test_a_crash_while_a_key_is_made_leaves_exactly_one(
    moment: Callable[..., None], operator: OperatorProcess, token: SoftHsmToken, keys: MasterKeys, outsider: Outsider
) -> None:
    def objects() -> int:
        return sum(1 for _ in token.tokens.glob("*/*.object"))

    name = new_name()
    keys.create(name)
    moment(keys, name, objects)
    operator.kill()
    intent = keys.get(name)["status"].get("pendingVersion", {}).get("keyId")
    operator.start(wait=False)
    ready = keys.wait_ready(name)["status"]
    (material,) = outsider.materials(name=name)
    assert material.cka_id == cka_id(ready["keyId"])
    assert intent in (None, ready["keyId"])
    operator.wait_ready()


# Adoption


def test_a_key_deleted_and_made_again_is_the_same_key(admin: Api, keys: MasterKeys, outsider: Outsider) -> None:
    name = new_name()
    keys.create(name)
    before = keys.wait_ready(name)["status"]
    blob = encrypt(admin, name)
    keys.delete(name)
    assert len(outsider.materials(name=name)) == 1
    keys.create(name)
    after = keys.wait_ready(name)["status"]
    assert after["keyId"] == before["keyId"]
    assert after["versions"] == before["versions"]
    assert "shared" not in after
    assert decrypt(admin, name, blob) == "YQ=="
    assert len(outsider.materials(name=name)) == 1
    wait_for(lambda: "KeyAdopted" in {event["reason"] for event in events_about(admin, name)}, 30, "the Event")


def test_a_key_of_another_name_is_used_by_its_id_and_marked_as_shared(
    admin: Api, keys: MasterKeys, outsider: Outsider
) -> None:
    first, second = new_name(), new_name()
    keys.create(first)
    key_id = keys.wait_ready(first)["status"]["keyId"]
    blob = encrypt(admin, first)
    keys.create(second, keyId=key_id)
    shared = keys.wait_ready(second)["status"]
    assert shared["keyId"] == key_id
    assert shared["shared"] is True
    assert decrypt(admin, second, blob) == "YQ=="
    assert outsider.materials(name=second) == []
    assert len(outsider.materials(key_id=key_id)) == 1


def test_an_id_that_the_token_does_not_hold_is_not_found(keys: MasterKeys, outsider: Outsider) -> None:
    name, key_id = new_name(), str(uuid.uuid4())
    keys.create(name, keyId=key_id)
    refused = keys.wait_reason(name, "KeyNotFound")
    assert condition(refused, "Stalled")["status"] == "True"
    assert key_id in condition(refused, "Ready")["message"]
    assert outsider.materials(key_id=key_id) == []


def test_another_clusters_key_of_the_same_name_is_not_taken(admin: Api, keys: MasterKeys, outsider: Outsider) -> None:
    name, key_id = new_name(), str(uuid.uuid4())
    foreign = Material(cka_id(key_id), f"strongroom/{'f' * 16}/{name}/v1/20260101T000000Z")
    outsider.generate(foreign)
    keys.create(name)
    refused = keys.wait_reason(name, "KeyExists")
    assert condition(refused, "Stalled")["status"] == "True"
    assert key_id in condition(refused, "Ready")["message"]
    assert outsider.materials(name=name) == [foreign]
    keys.delete(name)
    keys.create(name, keyId=key_id)
    assert keys.wait_ready(name)["status"]["shared"] is True
    assert decrypt(admin, name, encrypt(admin, name)) == "YQ=="


def test_a_twin_in_the_token_is_a_conflict_and_nothing_is_deleted(
    admin: Api, keys: MasterKeys, outsider: Outsider
) -> None:
    name = new_name()
    keys.create(name)
    keys.wait_ready(name)
    (own,) = outsider.materials(name=name)
    twin = Material(own.cka_id, "made elsewhere")
    outsider.generate(twin)
    keys.change(name, description="look again")
    conflict = keys.wait_reason(name, "KeyConflict")
    assert condition(conflict, "Stalled")["status"] == "True"
    assert reason_of(lambda: encrypt(admin, name)) == "KeyConflict", "neither of the two is used"
    key_id = conflict["status"]["keyId"]
    assert set(map(str, outsider.materials(key_id=key_id))) == {str(own), str(twin)}
    outsider.destroy(twin)
    keys.change(name, description="look once more")
    keys.wait_ready(name)
    assert decrypt(admin, name, encrypt(admin, name)) == "YQ=="


# What cannot be


def test_a_token_that_is_not_configured_is_named(keys: MasterKeys) -> None:
    name = new_name()
    keys.create(name, hsm="elsewhere")
    message = condition(keys.wait_reason(name, "HSMUnavailable"), "Ready")["message"]
    assert "'elsewhere'" in message
    assert "default" in message


def test_an_unknown_kind_of_key_is_refused_and_nothing_is_made(
    admin: Api, keys: MasterKeys, outsider: Outsider
) -> None:
    name = new_name()
    keys.create(name, keySpec="SM4_128")
    refused = keys.wait_reason(name, "UnsupportedFormat")
    assert condition(refused, "Stalled")["status"] == "True"
    assert "SM4_128" in condition(refused, "Ready")["message"]
    assert reason_of(lambda: encrypt(admin, name)) == "KeyNotReady"
    assert outsider.materials(name=name) == []


# States


def test_a_disabled_key_is_refused_on_the_next_operation_and_existing_secrets_stay(
    admin: Api, keys: MasterKeys, new_tenant: TenantFactory
) -> None:
    tenant = new_tenant(key=new_name())
    keys.made.add(tenant.key)
    before = tenant.deliver("before", {"a": b"1"})
    blobs = tenant.encrypt("after", {"a": b"2"})
    blob = encrypt(admin, tenant.key)
    keys.change(tenant.key, state="Disabled")
    # Requests share one read of the key in 100 ms.
    wait_for(lambda: reason_of(lambda: encrypt(admin, tenant.key)) == "KeyDisabled", 1, "the state to act")
    assert reason_of(lambda: decrypt(admin, tenant.key, blob)) == "KeyDisabled"
    assert keys.wait_ready(tenant.key)["status"]["state"] == "Disabled"
    tenant.apply("after", blobs)
    refused = tenant.wait_reason("after", "KeyDisabled")
    assert condition(refused, "Stalled")["status"] == "True"
    assert tenant.secret("after") is None
    assert tenant.existing_secret("before") == before
    assert condition(tenant.get("before"), "Ready")["status"] == "True"
    keys.change(tenant.key, state="Enabled")
    tenant.wait_ready("after")
    assert tenant.values("after") == {"a": b"2"}
    assert tenant.existing_secret("before") == before
    assert decrypt(admin, tenant.key, blob) == "YQ=="


def test_an_archived_key_decrypts_and_does_not_encrypt(admin: Api, keys: MasterKeys, new_tenant: TenantFactory) -> None:
    tenant = new_tenant(key=new_name())
    keys.made.add(tenant.key)
    blobs, blob = tenant.encrypt("db", {"a": b"1"}), encrypt(admin, tenant.key)
    keys.change(tenant.key, state="Archived")
    assert keys.wait_ready(tenant.key)["status"]["state"] == "Archived"
    assert reason_of(lambda: encrypt(admin, tenant.key)) == "KeyArchived"
    assert decrypt(admin, tenant.key, blob) == "YQ=="
    tenant.apply("db", blobs)
    tenant.wait_ready("db")
    assert tenant.values("db") == {"a": b"1"}


def test_objects_that_wait_for_a_key_heal_when_it_is_made(keys: MasterKeys, admin: Api, tenant: Tenant) -> None:
    """As after a restore in which the EncryptedSecrets came first."""
    name = new_name()
    keys.create(name)
    keys.wait_ready(name)
    tenant.grant(key=name)
    blobs = tenant.encrypt("db", {"a": b"1"}, key=name)
    keys.delete(name)
    tenant.apply("db", blobs, keyRef={"name": name})
    tenant.wait_reason("db", "KeyNotFound")
    keys.create(name)
    tenant.wait_ready("db")


# The ledger


def test_the_ledger_counts_upwards_over_crashes_and_outlives_the_object(
    admin: Api, keys: MasterKeys, operator: OperatorProcess
) -> None:
    name = new_name()
    keys.create(name)
    key_id = keys.wait_ready(name)["status"]["keyId"]
    path = f"/api/v1/namespaces/strongroom/configmaps/strongroom-ledger-{key_id}"

    def counted() -> int:
        ledger = json.loads(admin("GET", path)["data"]["ledger.json"])
        assert ledger["keyId"] == key_id
        return int(ledger["versions"]["1"]["encryptions"])

    assert admin.find(path) is None, "nothing is reserved before something is encrypted"
    encrypt(admin, name)
    encrypt(admin, name)
    assert counted() == BLOCK
    operator.kill()
    operator.start()
    assert counted() == BLOCK
    encrypt(admin, name)
    assert counted() == 2 * BLOCK, "what was reserved counts as used"
    keys.delete(name)
    assert counted() == 2 * BLOCK
    keys.create(name)
    keys.wait_ready(name)
    operator.kill()
    operator.start()
    encrypt(admin, name)
    assert counted() == 3 * BLOCK
