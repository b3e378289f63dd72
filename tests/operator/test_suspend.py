# SPDX-License-Identifier: Apache-2.0
"""`spec.suspend` leaves the Secret as it is, in whatever state, until it is taken back."""

from typing import Any

import pytest

from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.tenant import REACTION_SECONDS, Tenant, condition

pytestmark = pytest.mark.cluster

VALUES = {"password": b"secret"}
NEW = {"password": b"new"}


def set_suspended(tenant: Tenant, value: bool) -> None:
    tenant.api.patch(tenant.path("db"), {"spec": {"suspend": value}})


def wait_suspended(tenant: Tenant) -> dict[str, Any]:
    def suspended() -> dict[str, Any] | None:
        item = tenant.get("db")
        current = item["status"].get("observedGeneration") == item["metadata"]["generation"]
        return item if current and condition(item, "Suspended")["status"] == "True" else None

    return wait_for(suspended, REACTION_SECONDS, "db to be suspended")


@pytest.mark.usefixtures("operator")
def test_suspended_object_is_not_written_for_at_first(tenant: Tenant) -> None:
    tenant.seal("db", VALUES, suspend=True)
    item = wait_suspended(tenant)
    assert (condition(item, "Ready")["status"], condition(item, "Ready")["reason"]) == ("False", "Suspended")
    assert tenant.secret("db") is None
    set_suspended(tenant, False)
    tenant.wait_ready("db")
    assert tenant.values("db") == VALUES


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("harm", ["edited", "deleted"])
def test_suspension_stops_repairs_and_ready_stays_true(tenant: Tenant, harm: str) -> None:
    tenant.deliver("db", VALUES)
    set_suspended(tenant, True)
    assert condition(wait_suspended(tenant), "Ready")["status"] == "True"
    tenant.deliver("witness", VALUES)
    for name in ("db", "witness"):
        if harm == "edited":
            tenant.api.patch(tenant.secret_path(name), {"data": {"password": "eA=="}})
        else:
            tenant.api("DELETE", tenant.secret_path(name))
    tenant.wait_values("witness", VALUES)  # harmed after db, so db has been looked at
    assert tenant.values("db") == ({"password": b"x"} if harm == "edited" else None)
    assert condition(tenant.get("db"), "Ready")["status"] == "True"
    set_suspended(tenant, False)
    tenant.wait_values("db", VALUES)
    item = tenant.wait_ready("db")
    assert condition(item, "Suspended")["status"] == "Unknown"


@pytest.mark.usefixtures("operator")
def test_suspension_stops_new_specs_and_says_so(tenant: Tenant) -> None:
    before = tenant.deliver("db", VALUES)
    set_suspended(tenant, True)
    wait_suspended(tenant)
    tenant.api.patch(tenant.path("db"), {"spec": {"encryptedData": tenant.encrypt("db", NEW)}})
    item = wait_suspended(tenant)
    ready = condition(item, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Suspended")
    assert "set it to false" in ready["message"]
    assert item["status"]["secretName"] == "db"
    assert tenant.secret("db") == before
    set_suspended(tenant, False)
    tenant.wait_ready("db")
    assert tenant.values("db") == NEW


def test_suspending_and_resuming_costs_no_decryption_and_no_write(operator: OperatorProcess, tenant: Tenant) -> None:
    before = tenant.deliver("db", VALUES)
    decryptions = len(tenant.audit_lines(operator))
    set_suspended(tenant, True)
    wait_suspended(tenant)
    set_suspended(tenant, False)
    item = tenant.wait_ready("db")
    assert condition(item, "Suspended")["status"] == "Unknown"
    assert tenant.secret("db") == before
    assert len(tenant.audit_lines(operator)) == decryptions


@pytest.mark.usefixtures("operator")
def test_spec_put_back_while_suspended_is_ready_again(tenant: Tenant) -> None:
    before = tenant.deliver("db", VALUES)
    old = tenant.get("db")["spec"]["encryptedData"]
    tenant.apply("db", tenant.encrypt("db", NEW), suspend=True)
    assert condition(wait_suspended(tenant), "Ready")["status"] == "False"
    tenant.apply("db", old, suspend=True)
    assert condition(wait_suspended(tenant), "Ready")["status"] == "True"
    assert tenant.secret("db") == before
