# SPDX-License-Identifier: Apache-2.0
"""What is changed by hand comes back; what is none of ours stays; and nothing is done where nothing is wrong."""

import base64
import time
from typing import Any

import pytest

from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.conftest import OwnOperator
from tests.operator.tenant import REACTION_SECONDS, Tenant, condition, decoded

pytestmark = pytest.mark.cluster

VALUES = {"password": b"right", "user": b"admin"}
LABELS = {"team": "payments"}
ANNOTATIONS = {"example.com/owner": "us"}
TEMPLATE = {"metadata": {"labels": LABELS, "annotations": ANNOTATIONS}}
MANAGED = "strongroom.dev/managed"

HARM: dict[str, Any] = {
    "value-edited": {"data": {"password": "eA=="}},
    "value-emptied": {"data": {"password": ""}},
    "key-added": {"data": {"extra": "eA=="}},
    "key-added-as-string": {"stringData": {"extra": "x"}},
    "key-removed": {"data": {"password": None}},
    "all-keys-removed": {"data": None},
    "label-of-ours-removed": {"metadata": {"labels": {MANAGED: None}}},
    "label-of-ours-changed": {"metadata": {"labels": {MANAGED: "false"}}},
    "managed-by-changed": {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}},
    "label-of-the-template-changed": {"metadata": {"labels": {"team": "other"}}},
    "label-of-the-template-removed": {"metadata": {"labels": {"team": None}}},
    "annotation-of-the-template-removed": {"metadata": {"annotations": {"example.com/owner": None}}},
    "everything-at-once": {"metadata": {"labels": None, "annotations": None}, "data": {"a": "eA==", "user": None}},
}


def as_asked(tenant: Tenant, secret: dict[str, Any]) -> bool:
    metadata = secret["metadata"]
    labels = LABELS | {MANAGED: "true", "app.kubernetes.io/managed-by": "strongroom"}
    return bool(
        decoded(secret) == VALUES
        and labels.items() <= metadata.get("labels", {}).items()
        and ANNOTATIONS.items() <= metadata.get("annotations", {}).items()
        and [owner["uid"] for owner in metadata.get("ownerReferences", ())] == [tenant.get("db")["metadata"]["uid"]]
    )


def wait_repaired(tenant: Tenant) -> dict[str, Any]:
    def repaired() -> dict[str, Any] | None:
        secret = tenant.secret("db")
        return secret if secret and as_asked(tenant, secret) else None

    return wait_for(repaired, REACTION_SECONDS, "Secret db to be as asked", interval=0.02)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("harm", HARM)
def test_change_by_hand_is_repaired(tenant: Tenant, harm: str) -> None:
    before = tenant.deliver("db", VALUES, template=TEMPLATE)
    tenant.api.patch(tenant.secret_path("db"), HARM[harm])
    assert wait_repaired(tenant)["metadata"]["uid"] == before["metadata"]["uid"]
    assert tenant.wait_ready("db")["metadata"]["generation"] == 1


@pytest.mark.usefixtures("operator")
def test_deleted_secret_is_made_again(tenant: Tenant) -> None:
    before = tenant.deliver("db", VALUES, template=TEMPLATE)
    tenant.api("DELETE", tenant.secret_path("db"))
    assert wait_repaired(tenant)["metadata"]["uid"] != before["metadata"]["uid"]


@pytest.mark.usefixtures("operator")
def test_secret_made_foreign_by_hand_is_left_alone_until_it_is_handed_back(tenant: Tenant) -> None:
    """Whoever removes the owner reference takes the Secret away from us."""
    tenant.deliver("db", VALUES, template=TEMPLATE)
    harm = {"metadata": {"ownerReferences": None}, "data": {"password": "eA=="}}
    taken = tenant.api.patch(tenant.secret_path("db"), harm)
    tenant.wait_reason("db", "TargetNotOwned")
    assert tenant.secret("db") == taken
    tenant.api.patch(tenant.secret_path("db"), {"metadata": {"annotations": {"strongroom.dev/adopt": "true"}}})
    wait_repaired(tenant)
    tenant.wait_ready("db")


@pytest.mark.usefixtures("operator")
def test_repair_keeps_labels_and_annotations_of_others(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES, template=TEMPLATE)
    theirs = {"labels": {"theirs": "1"}, "annotations": {"example.com/theirs": "2"}}
    tenant.api.patch(tenant.secret_path("db"), {"metadata": theirs, "data": {"password": "eA=="}})
    metadata = wait_repaired(tenant)["metadata"]
    assert metadata["labels"]["theirs"] == "1"
    assert metadata["annotations"]["example.com/theirs"] == "2"


def versions(tenant: Tenant) -> dict[str, str]:
    """resourceVersion of every EncryptedSecret and Secret of the namespace."""
    return {
        f"{path}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for path in (tenant.path("").rstrip("/"), tenant.secret_path("").rstrip("/"))
        for item in tenant.api("GET", path)["items"]
    }


def looked_at(operator: OperatorProcess) -> float:
    return operator.metrics().value("strongroom_reconcile_total", kind="EncryptedSecret")


def decryptions(operator: OperatorProcess, tenant: Tenant) -> float:
    return operator.metrics().value("strongroom_crypto_operations_total", operation="Decrypt", key=tenant.key)


def test_500_secrets_labelled_by_another_tool_cost_nothing_now_or_after_a_restart(
    own_operator: OwnOperator, tenant: Tenant
) -> None:
    operator = own_operator()
    tenant.key_name = tenant.make_key()  # nobody else's operations are counted
    count = 500
    blobs = tenant.encrypt("any", VALUES, scope="Namespace")
    for n in range(count):
        tenant.apply(f"db-{n}", blobs, scope="Namespace")
    secrets = tenant.secret_path("").rstrip("/")
    statuses = tenant.path("").rstrip("/")
    wait_for(
        lambda: all(condition(item, "Ready")["status"] == "True" for item in tenant.api("GET", statuses)["items"]),
        60,
        "all objects to be ready",
        interval=0.5,
    )
    decrypted = decryptions(operator, tenant)
    assert decrypted == count
    before = looked_at(operator)
    for n in range(count):
        tenant.api.patch(f"{secrets}/db-{n}", {"metadata": {"labels": {"backup.example.com/id": f"{n}"}}})
    after = versions(tenant)
    assert len(after) == 2 * count
    wait_for(lambda: looked_at(operator) >= before + count, 60, "every labelled Secret to be looked at", interval=0.5)
    assert decryptions(operator, tenant) == decrypted
    assert versions(tenant) == after
    operator.stop()
    operator.start()
    wait_for(lambda: looked_at(operator) >= count, 60, "every object to be looked at again", interval=0.2)
    assert decryptions(operator, tenant) == 0
    assert versions(tenant) == after
    assert operator.metrics().value("strongroom_secret_writes_total") == 0
    labels = tenant.existing_secret("db-7")["metadata"]["labels"]
    assert labels["backup.example.com/id"] == "7"


def test_repairs_back_off_when_someone_fights(operator: OperatorProcess, tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    name = "strongroom_secret_writes_total"
    before = operator.metrics().value(name)
    rounds = 4
    pauses = []
    for _ in range(rounds):
        tenant.api.patch(tenant.secret_path("db"), {"data": {"password": "eA=="}}, manager="other-operator")
        spoilt = time.monotonic()
        tenant.wait_values("db", VALUES)
        pauses.append(time.monotonic() - spoilt)
    # At once the first time; then 1 s, 2 s, 4 s after the repair before.
    assert pauses[1] > 0.8
    assert pauses[2] > 1.6
    assert pauses[3] > 3.2
    assert operator.metrics().value(name) - before == rounds


@pytest.mark.usefixtures("operator")
def test_immutable_secret_says_what_to_do_when_the_spec_changes(tenant: Tenant) -> None:
    template = {"immutable": True}
    before = tenant.deliver("db", VALUES, template=template)
    assert before["immutable"] is True
    tenant.seal("db", VALUES | {"password": b"new"}, template=template)
    item = tenant.wait_reason("db", "TargetImmutable")
    assert condition(item, "Stalled")["status"] == "True"
    assert f"kubectl delete secret -n {tenant.namespace} db" in condition(item, "Ready")["message"]
    assert tenant.secret("db") == before
    tenant.api("DELETE", tenant.secret_path("db"))
    tenant.wait_ready("db")
    after = tenant.existing_secret("db")
    assert decoded(after) == VALUES | {"password": b"new"}
    assert after["immutable"] is True


@pytest.mark.usefixtures("operator")
def test_changed_type_says_what_to_do(tenant: Tenant) -> None:
    before = tenant.deliver("db", VALUES)
    tenant.seal("db", VALUES, template={"type": "example.com/other"})
    item = tenant.wait_reason("db", "TargetImmutable")
    assert f"kubectl delete secret -n {tenant.namespace} db" in condition(item, "Ready")["message"]
    assert tenant.secret("db") == before
    tenant.api("DELETE", tenant.secret_path("db"))
    tenant.wait_ready("db")
    assert tenant.existing_secret("db")["type"] == "example.com/other"


@pytest.mark.usefixtures("operator")
def test_secret_made_immutable_by_hand_is_not_fought_over(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    tenant.api.patch(tenant.secret_path("db"), {"immutable": True})
    tenant.seal("db", VALUES | {"password": b"new"})
    tenant.wait_reason("db", "TargetImmutable")
    assert tenant.values("db") == VALUES


@pytest.mark.usefixtures("operator")
def test_foreign_writer_of_the_right_values_is_not_fought(tenant: Tenant) -> None:
    """Somebody applies the very values that are there: nothing is wrong with them, and so they stay."""
    before = tenant.deliver("db", VALUES)
    data = {key: base64.b64encode(value).decode() for key, value in VALUES.items()}
    tenant.api.apply(
        tenant.secret_path("db"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": data},
    )
    tenant.deliver("witness", VALUES)
    after = tenant.existing_secret("db")
    assert (after["data"], after["metadata"]["uid"]) == (before["data"], before["metadata"]["uid"])
    tenant.wait_ready("db")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("status", [None, {"observedGeneration": 1}, {"conditions": None}, {"appliedSpec": "sha256:0"}])
def test_status_changed_by_hand_comes_back(tenant: Tenant, status: dict[str, Any] | None) -> None:
    before = tenant.deliver("db", VALUES)
    good = tenant.wait_ready("db")["status"]
    spoilt = {"status": status}
    tenant.api.patch(f"{tenant.path('db')}/status", spoilt)

    def whole() -> bool:
        now = tenant.get("db")["status"]
        return {key: value for key, value in now.items() if key != "conditions"} == {
            key: value for key, value in good.items() if key != "conditions"
        } and condition(tenant.get("db"), "Ready")["status"] == "True"

    wait_for(whole, REACTION_SECONDS, "the status to come back")
    assert tenant.values("db") == VALUES
    assert tenant.existing_secret("db")["metadata"]["uid"] == before["metadata"]["uid"]


def test_without_drift_watch_specs_are_followed_and_secrets_left_alone(
    own_operator: OwnOperator, tenant: Tenant
) -> None:
    """The operator may not even list Secrets then."""
    own_operator(values={"secrets": {"driftWatch": False}})
    tenant.deliver("db", VALUES, template=TEMPLATE)
    spoilt = tenant.api.patch(tenant.secret_path("db"), {"data": {"password": "eA==", "extra": "eA=="}})
    tenant.deliver("witness", VALUES)
    assert tenant.secret("db") == spoilt
    after = tenant.deliver("db", {"new": b"1"})
    assert decoded(after) == {"new": b"1"}
    assert "team" not in after["metadata"]["labels"]
    tenant.api("DELETE", tenant.secret_path("db"))
    assert decoded(tenant.deliver("db", {"new": b"2"})) == {"new": b"2"}
    foreign = tenant.api(
        "POST",
        f"/api/v1/namespaces/{tenant.namespace}/secrets",
        {"metadata": {"name": "foreign", "labels": {MANAGED: "true"}}, "data": {"a": "eA=="}},
    )
    tenant.seal("foreign", VALUES)
    tenant.wait_reason("foreign", "TargetNotOwned")
    assert tenant.secret("foreign") == foreign
