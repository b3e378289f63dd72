# SPDX-License-Identifier: Apache-2.0
"""What is told of each operation: Events for people, audit records for good, and plaintext in none of them."""

import base64
import hashlib
import json
from typing import Any

import pytest

from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import REACTION_SECONDS, Tenant, condition

pytestmark = pytest.mark.cluster

CANARY = "k4n4ri3nv0g3l"
VALUES = {"password": b"secret", "empty": b"", "user": b"admin"}
DOCKER = "kubernetes.io/dockerconfigjson"
REJECTED: dict[str, tuple[dict[str, bytes], str]] = {
    "not-json": ({".dockerconfigjson": CANARY.encode()}, DOCKER),
    "json-with-a-tail": ({".dockerconfigjson": f'{{"auths":{{}}}}{CANARY}'.encode()}, DOCKER),
    "json-without-quotes": ({".dockerconfigjson": f'{{"auths":{CANARY}}}'.encode()}, DOCKER),
    "other-data-key": ({"config.json": CANARY.encode()}, DOCKER),
    "no-certificate": ({"tls.key": CANARY.encode()}, "kubernetes.io/tls"),
}


def events(tenant: Tenant, name: str = "db") -> list[dict[str, Any]]:
    listed = tenant.api("GET", f"/apis/events.k8s.io/v1/namespaces/{tenant.namespace}/events")["items"]
    return [event for event in listed if event["regarding"]["name"] == name]


def wait_events(tenant: Tenant, *reasons: str) -> list[dict[str, Any]]:
    """The Events about db, once there are those with these reasons, in this order; and no others."""

    def told() -> list[dict[str, Any]] | None:
        found = sorted(events(tenant), key=lambda event: event["eventTime"])
        return found if len(found) >= len(reasons) else None

    found = wait_for(told, REACTION_SECONDS, f"Events {reasons}")
    assert tuple(event["reason"] for event in found) == reasons
    return found


@pytest.mark.usefixtures("operator")
def test_each_write_is_an_event(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    (event,) = wait_events(tenant, "Decrypted")
    item = tenant.get("db")
    assert event["type"] == "Normal"
    assert event["action"] == "Decrypt"
    assert event["reportingController"] == "strongroom.dev/operator"
    assert event["regarding"]["uid"] == item["metadata"]["uid"]
    assert event["regarding"]["kind"] == "EncryptedSecret"
    assert event["note"] == f"Wrote Secret db with 3 values, decrypted by key {tenant.key} version 1"


@pytest.mark.usefixtures("operator")
def test_equal_events_become_a_series(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    for _ in range(3):
        tenant.api("DELETE", tenant.secret_path("db"))
        tenant.wait_values("db", VALUES)

    def series() -> bool:
        return any(event.get("series", {}).get("count") == 3 for event in events(tenant))

    wait_for(series, REACTION_SECONDS, "a series of three repairs")
    written, repaired = wait_events(tenant, "Decrypted", "Decrypted")
    assert (written["action"], repaired["action"]) == ("Decrypt", "Repair")


@pytest.mark.usefixtures("operator")
def test_failure_is_one_warning_with_its_reason_however_often_it_is_looked_at(tenant: Tenant) -> None:
    tenant.apply("db", tenant.encrypt("other", VALUES))
    item = tenant.wait_reason("db", "InvalidCiphertext")
    for n in range(20):
        tenant.api.patch(tenant.path("db"), {"metadata": {"labels": {"touched": f"{n}"}}})
    tenant.deliver("witness", VALUES)
    wait_for(lambda: events(tenant, "witness"), REACTION_SECONDS, "the witness' Event")  # sent after db's
    (event,) = wait_events(tenant, "InvalidCiphertext")
    assert event["type"] == "Warning"
    assert "series" not in event
    assert event["note"] == condition(item, "Ready")["message"]


@pytest.mark.usefixtures("operator")
def test_denial_is_one_warning_then_a_normal_event(new_tenant: TenantFactory) -> None:
    tenant = new_tenant(grant=False)
    tenant.seal("db", VALUES)
    tenant.wait_reason("db", "AccessDenied")
    tenant.grant()
    tenant.wait_ready("db")
    denied, decrypted = wait_events(tenant, "AccessDenied", "Decrypted")
    assert (denied["type"], decrypted["type"]) == ("Warning", "Normal")


def test_each_decryption_is_one_audit_record(operator: OperatorProcess, tenant: Tenant) -> None:
    context = {"team": "payments"}
    tenant.grant("deployer", key=tenant.key)
    tenant.deliver("db", VALUES, serviceAccountName="deployer", encryptionContext=context)
    item = tenant.get("db")
    (record,) = tenant.audit_lines(operator)
    account = f"system:serviceaccount:{tenant.namespace}"
    assert record["eventName"] == "Decrypt"
    assert record["principal"]["username"] == f"{account}:deployer"
    assert set(record["principal"]["groups"]) == {
        "system:serviceaccounts",
        f"system:serviceaccounts:{tenant.namespace}",
        "system:authenticated",
    }
    assert record["permission"] == {"verb": "use", "subresource": "", "namespace": tenant.namespace}
    assert record["object"] == {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "namespace": tenant.namespace,
        "name": "db",
        "uid": item["metadata"]["uid"],
        "generation": 1,
    }
    assert record["key"]["name"] == tenant.key
    assert record["key"]["versions"] == [1]
    assert record["request"]["scope"] == "Strict"
    assert record["request"]["encryptionContext"] == context
    sizes = {value["dataKey"]: value["bytes"] for value in record["request"]["values"]}
    assert sizes == {"password": 6, "empty": 0, "user": 5}
    assert (record["verdict"], record["outcome"]) == ({"decision": "Allowed", "by": "RBAC"}, "Success")
    assert (record["errorCode"], record["ckr"]) == ("", "")


def test_refusals_are_audit_records_too(operator: OperatorProcess, new_tenant: TenantFactory) -> None:
    tenant = new_tenant(grant=False)
    tenant.apply("db", tenant.encrypt("other", VALUES))
    tenant.wait_reason("db", "AccessDenied")
    tenant.grant()
    tenant.wait_reason("db", "InvalidCiphertext")
    denied, failed = tenant.audit_lines(operator)
    assert (denied["verdict"]["decision"], denied["outcome"], denied["errorCode"]) == (
        "Denied",
        "Denied",
        "AccessDenied",
    )
    assert (failed["verdict"]["decision"], failed["outcome"], failed["errorCode"]) == (
        "Allowed",
        "Failure",
        "InvalidCiphertext",
    )
    assert failed["ckr"].startswith("CKR_")


def test_records_are_chained(operator: OperatorProcess, tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    lines = operator.audit_lines()
    by_chain: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_chain.setdefault(line["chain"], []).append(line)
    for chain in by_chain.values():
        previous = "0" * 64
        for sequence, line in enumerate(chain):
            assert (line["sequence"], line["prevHash"]) == (sequence, previous)
            content = {key: value for key, value in line.items() if key != "hash"}
            text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            previous = hashlib.sha256(text.encode()).hexdigest()
            assert line["hash"] == previous


@pytest.mark.parametrize("case", REJECTED)
def test_rejected_secret_tells_nothing_of_its_values(operator: OperatorProcess, tenant: Tenant, case: str) -> None:
    """The API server's own message quotes them."""
    values, secret_type = REJECTED[case]
    tenant.seal("db", values, template={"type": secret_type})
    item = tenant.wait_reason("db", "TargetRejected")
    assert condition(item, "Reconciling")["status"] == "True"
    assert tenant.secret("db") is None
    (event,) = wait_events(tenant, "TargetRejected")
    records = tenant.audit_lines(operator)
    assert records
    assert "422" in condition(item, "Ready")["message"]
    for told in (str(item["status"]), str(event), str(records), operator.log_text()):
        for written in (CANARY, *(base64.b64encode(value).decode() for value in values.values())):
            assert written not in told


def test_rejected_change_keeps_the_secret_and_heals(operator: OperatorProcess, tenant: Tenant) -> None:
    template = {"type": DOCKER}
    before = tenant.deliver("db", {".dockerconfigjson": b"{}"}, template=template)
    tenant.seal("db", {".dockerconfigjson": CANARY.encode()}, template=template)
    tenant.wait_reason("db", "TargetRejected")
    assert tenant.secret("db") == before
    assert CANARY not in operator.log_text()
    tenant.deliver("db", {".dockerconfigjson": b'{"auths":{}}'}, template=template)
    assert tenant.values("db") == {".dockerconfigjson": b'{"auths":{}}'}


@pytest.mark.usefixtures("operator")
def test_quota_rejects_and_heals_when_there_is_room(tenant: Tenant) -> None:
    quota = f"/api/v1/namespaces/{tenant.namespace}/resourcequotas"
    tenant.api("POST", quota, {"metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}})
    wait_for(
        lambda: tenant.api("GET", f"{quota}/none").get("status", {}).get("hard"), REACTION_SECONDS, "the quota to count"
    )
    tenant.seal("db", VALUES)
    tenant.wait_reason("db", "TargetRejected")
    assert tenant.secret("db") is None
    tenant.api("DELETE", f"{quota}/none")
    tenant.wait_ready("db")
    assert tenant.values("db") == VALUES
