# SPDX-License-Identifier: Apache-2.0
"""Whose Secret it is decides: a foreign one is never touched, ours stays ours, a predecessor's is taken over."""

import base64
import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.controlplane import ControlPlane
from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.tenant import GONE_SECONDS, REACTION_SECONDS, Tenant, condition, controller, decoded
from tests.operator.tenant import annotations as annotations_of

pytestmark = pytest.mark.cluster

ADOPT = "strongroom.dev/adopt"
VALUES = {"password": b"from the encrypted secret"}
FOREIGN_DATA = {"password": base64.b64encode(b"somebody else's").decode(), "more": "eA=="}


def create_secret(tenant: Tenant, manager: str = "somebody", **fields: Any) -> dict[str, Any]:
    """Create a Secret `db` by hand; `fields` adds to it, metadata included."""
    metadata = {"name": "db"} | fields.pop("metadata", {})
    created: dict[str, Any] = tenant.api(
        "POST",
        f"/api/v1/namespaces/{tenant.namespace}/secrets",
        {"metadata": metadata, "type": "Opaque", "data": FOREIGN_DATA} | fields,
        fieldManager=manager,
    )
    return created


def another_controller(tenant: Tenant) -> dict[str, Any]:
    """An owner reference to an object that exists."""
    config_map = tenant.api(
        "POST", f"/api/v1/namespaces/{tenant.namespace}/configmaps", {"metadata": {"name": "controller"}}
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "controller",
        "uid": config_map["metadata"]["uid"],
        "controller": True,
    }


@pytest.fixture
def no_garbage_collector(control_plane: ControlPlane) -> Iterator[None]:
    """Keep the controller manager from deleting what has a wrong owner before the operator sees it."""
    controller_manager = control_plane.processes()[2]
    os.killpg(controller_manager.pid, signal.SIGSTOP)
    yield
    os.killpg(controller_manager.pid, signal.SIGCONT)


def foreign(case: str, tenant: Tenant) -> dict[str, Any]:
    """Metadata of a Secret that is not to be touched."""
    match case:
        case "plain":
            return {}
        case "labelled-like-ours":
            return {"labels": {"strongroom.dev/managed": "true", "app.kubernetes.io/managed-by": "strongroom"}}
        case "with-another-controller":
            return {"ownerReferences": [another_controller(tenant)]}
        case "for-adoption-with-another-controller":
            return {"ownerReferences": [another_controller(tenant)], "annotations": {ADOPT: "true"}}
        case "adoption-declined":
            return {"annotations": {ADOPT: "false"}}
        case "owned-but-not-controlled-by-ours":
            return {"ownerReferences": [another_controller(tenant) | {"controller": False}]}
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "labelled-like-ours",
        "with-another-controller",
        "for-adoption-with-another-controller",
        "adoption-declined",
        "owned-but-not-controlled-by-ours",
    ],
)
@pytest.mark.usefixtures("operator")
def test_foreign_secret_is_untouched(tenant: Tenant, case: str) -> None:
    before = create_secret(tenant, metadata=foreign(case, tenant))
    tenant.seal("db", VALUES)
    item = tenant.wait_reason("db", "TargetNotOwned")
    assert condition(item, "Stalled")["status"] == "True"
    # A change of the object does not change whose the Secret is.
    tenant.seal("db", {"password": b"2"})
    item = tenant.wait_reason("db", "TargetNotOwned")
    assert "secretName" not in item["status"]
    message = condition(item, "Ready")["message"]
    assert f"kubectl annotate secret -n {tenant.namespace} db {ADOPT}=true" in message
    assert tenant.secret("db") == before


@pytest.mark.usefixtures("operator")
def test_object_heals_when_the_foreign_secret_is_gone(tenant: Tenant) -> None:
    create_secret(tenant, metadata={"labels": {"strongroom.dev/managed": "true"}})
    tenant.seal("db", VALUES)
    tenant.wait_reason("db", "TargetNotOwned")
    tenant.api("DELETE", tenant.secret_path("db"))
    tenant.wait_ready("db")
    assert tenant.values("db") == VALUES


@pytest.mark.usefixtures("operator")
def test_secret_that_asks_for_it_is_adopted(tenant: Tenant) -> None:
    foreign_owner = another_controller(tenant) | {"controller": False}
    annotations = {ADOPT: "true", "note": "kept"}
    before = create_secret(
        tenant,
        metadata={"annotations": annotations, "labels": {"team": "a"}, "ownerReferences": [foreign_owner]},
    )
    tenant.seal("db", VALUES)
    tenant.wait_ready("db")
    after = tenant.existing_secret("db")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert decoded(after) == VALUES
    assert annotations_of(after["metadata"]) == {"note": "kept"}
    assert after["metadata"]["labels"]["team"] == "a"
    assert controller(after)["uid"] == tenant.get("db")["metadata"]["uid"]
    # Adoption hands over deletion, too.
    tenant.api.patch(tenant.secret_path("db"), {"metadata": {"ownerReferences": [controller(after)]}})
    tenant.api("DELETE", tenant.path("db"))
    wait_for(lambda: tenant.secret("db") is None, GONE_SECONDS, "the adopted Secret to be deleted with its owner")


@pytest.mark.usefixtures("operator")
def test_adoption_works_after_the_refusal_too(tenant: Tenant) -> None:
    create_secret(tenant)
    tenant.seal("db", VALUES)
    tenant.wait_reason("db", "TargetNotOwned")
    tenant.api.patch(tenant.secret_path("db"), {"metadata": {"annotations": {ADOPT: "true"}}})
    # A Secret that does not carry our label is not watched; whoever does not want to wait touches the object.
    tenant.api.patch(tenant.path("db"), {"metadata": {"annotations": {"touched": "now"}}})
    tenant.wait_ready("db")
    assert tenant.values("db") == VALUES
    assert ADOPT not in tenant.existing_secret("db")["metadata"].get("annotations", {})


@pytest.mark.usefixtures("operator")
def test_secret_with_a_prepended_owner_stays_ours(tenant: Tenant) -> None:
    ours = controller(tenant.deliver("db", VALUES))
    other = another_controller(tenant) | {"controller": False}
    tenant.api.patch(
        tenant.secret_path("db"),
        [
            {"op": "add", "path": "/metadata/ownerReferences/0", "value": other},
            {"op": "add", "path": "/data/password", "value": "eA=="},
        ],
    )
    after = tenant.wait_values("db", VALUES)
    owners = after["metadata"]["ownerReferences"]
    assert {owner["uid"] for owner in owners} == {ours["uid"], other["uid"]}
    assert controller(after) == ours


@pytest.mark.usefixtures("operator", "no_garbage_collector")
@pytest.mark.parametrize("same_values", [True, False])
def test_secret_of_a_predecessor_is_taken_over(tenant: Tenant, same_values: bool) -> None:
    """As after a restore of both from a backup: the Secret names an owner whose uid exists no more."""
    predecessor = {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "name": "db",
        "uid": str(uuid.uuid4()),
        "controller": True,
    }
    data = {key: base64.b64encode(value).decode() for key, value in VALUES.items()} if same_values else FOREIGN_DATA
    before = create_secret(tenant, manager="velero", metadata={"ownerReferences": [predecessor]}, data=data)
    tenant.seal("db", VALUES)
    tenant.wait_ready("db")
    after = tenant.existing_secret("db")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert decoded(after) == VALUES
    assert [owner["uid"] for owner in after["metadata"]["ownerReferences"]] == [tenant.get("db")["metadata"]["uid"]]


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("change", ["kind", "name", "apiVersion"])
def test_owner_that_only_resembles_a_predecessor_is_foreign(
    operator: OperatorProcess, tenant: Tenant, change: str
) -> None:
    resembling = {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "name": "db",
        "uid": str(uuid.uuid4()),
        "controller": True,
    } | {change: {"kind": "CustomerMasterKey", "name": "db2", "apiVersion": "kms.strongroom.example/v1"}[change]}
    before = create_secret(tenant, metadata={"ownerReferences": [resembling]})
    tenant.seal("db", VALUES)
    tenant.wait_reason("db", "TargetNotOwned")
    assert tenant.secret("db") == before


def test_secret_restored_by_a_backup_tool_is_claimed_once(operator: OperatorProcess, tenant: Tenant) -> None:
    """Same values, same owner, but every field belongs to the tool: nothing differs, and yet nothing is known."""
    original = tenant.deliver("db", VALUES)
    tenant.apply("db", tenant.get("db")["spec"]["encryptedData"], suspend=True)
    wait_for(
        lambda: condition(tenant.get("db"), "Suspended")["status"] == "True", REACTION_SECONDS, "db to be suspended"
    )
    tenant.api("DELETE", tenant.secret_path("db"))
    kept = {key: original["metadata"][key] for key in ("labels", "ownerReferences")}
    restored = create_secret(tenant, manager="velero", metadata=kept, data=original["data"])
    before = operator.metrics()
    tenant.apply("db", tenant.get("db")["spec"]["encryptedData"], suspend=False)

    def claimed() -> bool:
        entries = tenant.existing_secret("db")["metadata"]["managedFields"]
        return any(entry["manager"] == "strongroom" and "f:data" in entry["fieldsV1"] for entry in entries)

    wait_for(claimed, REACTION_SECONDS, "the restored Secret to be claimed")
    tenant.wait_ready("db")
    claimed_secret = tenant.existing_secret("db")
    assert claimed_secret["metadata"]["uid"] == restored["metadata"]["uid"]
    assert decoded(claimed_secret) == VALUES
    # From now on it is as any other: another look costs nothing, a change is seen.
    looked = operator.metrics().value("strongroom_reconcile_total", result="ignore")
    touched = tenant.api.patch(tenant.secret_path("db"), {"metadata": {"labels": {"seen": "yes"}}})
    wait_for(
        lambda: operator.metrics().value("strongroom_reconcile_total", result="ignore") > looked,
        REACTION_SECONDS,
        "the touched Secret to be looked at",
    )
    assert tenant.secret("db") == touched
    after = operator.metrics()
    for write, times in {"claim": 1, "create": 0}.items():
        name = "strongroom_secret_writes_total"
        assert after.value(name, write=write) - before.value(name, write=write) == times, write
    tenant.api.patch(tenant.secret_path("db"), {"data": {"password": "eA=="}})
    tenant.wait_values("db", VALUES)
