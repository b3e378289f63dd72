# SPDX-License-Identifier: Apache-2.0
"""What GitOps tools make of the status: healthy means that the Secret of this generation exists, and nothing less."""

from collections.abc import Mapping
from typing import Any

import pytest

from testbed.waiting import wait_for
from tests.conftest import OwnOperator
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import REACTION_SECONDS, Tenant, condition

pytestmark = pytest.mark.cluster

VALUES = {"password": b"secret"}


def kstatus(item: Mapping[str, Any]) -> str:
    """The rules of kstatus (sigs.k8s.io/cli-utils) for kinds it does not know; Flux and others go by them."""
    if "deletionTimestamp" in item["metadata"]:
        return "Terminating"
    status = item.get("status", {})
    if status.get("observedGeneration", item["metadata"]["generation"]) != item["metadata"]["generation"]:
        return "InProgress"
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


def test_object_that_no_operator_has_seen_is_not_healthy(own_operator: OwnOperator, tenant: Tenant) -> None:
    operator = own_operator()
    blobs = tenant.encrypt("db", VALUES)
    operator.stop()
    created = tenant.apply("db", blobs)
    assert created["status"] == {"observedGeneration": -1}
    assert kstatus(created) == "InProgress"
    operator.start()
    assert kstatus(tenant.wait_ready("db")) == "Current"


@pytest.mark.usefixtures("operator")
def test_changed_object_is_not_healthy_before_its_secret_is_changed(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    changed = tenant.seal("db", {"password": b"new"})
    assert kstatus(changed) == "InProgress"
    assert kstatus(tenant.wait_ready("db")) == "Current"
    assert tenant.values("db") == {"password": b"new"}


@pytest.mark.usefixtures("operator")
def test_object_is_never_healthy_before_its_secret_holds_its_values(tenant: Tenant) -> None:
    """Looked at again and again, over 30 changes."""
    for n in range(30):
        values = {"password": str(n).encode()}
        tenant.seal("db", values)

        def healthy_with(values: dict[str, bytes] = values) -> bool:
            healthy = kstatus(tenant.get("db")) == "Current"
            assert not healthy or tenant.values("db") == values
            return healthy

        wait_for(healthy_with, REACTION_SECONDS, "db to be healthy", interval=0.002)


@pytest.mark.usefixtures("operator")
def test_object_without_permission_is_in_progress_at_first(new_tenant: TenantFactory) -> None:
    """Grants often arrive with the object: a tool that waits should go on waiting."""
    tenant = new_tenant(grant=False)
    tenant.seal("db", VALUES)
    denied = tenant.wait_reason("db", "AccessDenied")
    assert condition(denied, "Reconciling")["status"] == "True"
    assert kstatus(denied) == "InProgress"
    tenant.grant()
    assert kstatus(tenant.wait_ready("db")) == "Current"


@pytest.mark.usefixtures("operator")
def test_object_that_only_someone_can_help_has_failed(tenant: Tenant) -> None:
    tenant.apply("db", tenant.encrypt("other", VALUES))
    assert kstatus(tenant.wait_reason("db", "InvalidCiphertext")) == "Failed"


@pytest.mark.usefixtures("operator")
def test_failed_object_that_is_changed_is_in_progress_again(tenant: Tenant) -> None:
    tenant.apply("db", tenant.encrypt("other", VALUES))
    tenant.wait_reason("db", "InvalidCiphertext")
    assert kstatus(tenant.seal("db", VALUES)) == "InProgress"
    assert kstatus(tenant.wait_ready("db")) == "Current"


@pytest.mark.usefixtures("operator")
def test_object_being_deleted_is_terminating(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    tenant.api.patch(tenant.path("db"), {"metadata": {"finalizers": ["example.com/held"]}})
    tenant.api("DELETE", tenant.path("db"))
    assert kstatus(tenant.get("db")) == "Terminating"
    tenant.api.patch(tenant.path("db"), {"metadata": {"finalizers": None}})


@pytest.mark.usefixtures("operator")
def test_transition_time_moves_only_when_the_status_does(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    first = condition(tenant.get("db"), "Ready")
    tenant.deliver("db", {"password": b"new"})
    second = condition(tenant.get("db"), "Ready")
    assert second["lastTransitionTime"] == first["lastTransitionTime"]
    assert (first["observedGeneration"], second["observedGeneration"]) == (1, 2)
