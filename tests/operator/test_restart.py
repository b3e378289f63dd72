# SPDX-License-Identifier: Apache-2.0
"""A restart that changed nothing costs nothing; a crash at any moment loses nothing and does nothing twice."""

import re
import time
from collections.abc import Callable

import pytest

from testbed.controlplane import ControlPlane
from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.api import Api
from tests.operator.apicalls import ApiCalls
from tests.operator.backlog import Backlog
from tests.operator.tenant import KMS, Tenant

pytestmark = pytest.mark.cluster

SETTLED = 200
UNFINISHED = 100
STOP_SECONDS = 20.0
"""Kubernetes kills a pod 30 s after SIGTERM."""


def looked_at(operator: OperatorProcess) -> float:
    return operator.metrics().value("strongroom_reconcile_total", kind="EncryptedSecret")


def alone(api: Api, namespace: str) -> bool:
    """Whether this namespace has the only EncryptedSecrets, so that every HSM operation is for one of them."""
    items = api("GET", f"{KMS}/encryptedsecrets")["items"]
    return {item["metadata"]["namespace"] for item in items} == {namespace}


@pytest.mark.parametrize(
    "end", [pytest.param(OperatorProcess.stop, id="stopped"), pytest.param(OperatorProcess.kill, id="killed")]
)
def test_a_restart_that_changed_nothing_costs_nothing(
    end: Callable[[OperatorProcess], int],
    operator: OperatorProcess,
    tenant: Tenant,
    admin: Api,
    control_plane: ControlPlane,
) -> None:
    backlog = Backlog(tenant, SETTLED)
    backlog.create()
    tenant.apply("forged", tenant.encrypt("elsewhere", {"a": b"1"}))
    tenant.wait_reason("forged", "InvalidCiphertext")
    backlog.wait_reason("Decrypted")
    wait_for(lambda: alone(admin, tenant.namespace), 60, "other namespaces to be gone")
    wait_for(
        lambda: operator.metrics().value("strongroom_queue_depth", kind="EncryptedSecret") == 0, 30, "an empty queue"
    )
    secrets, states, audited = backlog.secrets(), backlog.states(), len(tenant.audit_lines(operator))
    end(operator)
    calls = ApiCalls(control_plane)
    operator.start()
    wait_for(lambda: looked_at(operator) >= SETTLED + 1, 60, "all objects to be looked at")
    wait_for(
        lambda: operator.metrics().value("strongroom_queue_depth", kind="EncryptedSecret") == 0, 30, "an empty queue"
    )
    metrics = operator.metrics()
    assert metrics.value("strongroom_hsm_values_total") == 0
    assert metrics.value("strongroom_secret_writes_total") == 0
    assert metrics.value("strongroom_status_writes_total") == 0
    assert metrics.value("strongroom_events_total") == 0
    assert calls.writes(tenant.namespace) == {}
    assert len(tenant.audit_lines(operator)) == audited
    assert (backlog.secrets(), backlog.states()) == (secrets, states)


def test_crashes_while_a_backlog_is_worked_off_lose_nothing_and_leave_nothing(
    operator: OperatorProcess, tenant: Tenant, control_plane: ControlPlane
) -> None:
    backlog = Backlog(tenant, UNFINISHED)
    operator.stop()
    backlog.create()
    calls = ApiCalls(control_plane)
    for written in (1, 20, 45, 70):
        operator.start(wait=False)
        wait_for(lambda written=written: len(backlog.secrets()) >= written, 60, "some Secrets", interval=0)  # type: ignore[misc]
        operator.kill()
    assert len(backlog.secrets()) < UNFINISHED, "the operator was killed in the middle"
    operator.start()
    backlog.wait_reason("Decrypted")
    backlog.check_secrets()
    assert set(backlog.secrets()) == set(backlog.names)
    # None is created twice. A write whose answer nobody waited for is not in kube-apiserver's log as a success.
    assert set(calls.created_secrets(tenant.namespace).values()) == {1}


def test_sigterm_in_the_middle_of_work_ends_it_in_time_and_well(operator: OperatorProcess, tenant: Tenant) -> None:
    backlog = Backlog(tenant, UNFINISHED)
    operator.stop()
    backlog.create()
    before = len(operator.log_text())
    operator.start(wait=False)
    wait_for(lambda: len(backlog.secrets()) > 5, 60, "some Secrets", interval=0)
    started = time.monotonic()
    assert operator.stop(STOP_SECONDS) == 0
    assert time.monotonic() - started < STOP_SECONDS
    # Kopf's own generators may complain when their loop is closed; no frame of the operator's may be in a traceback.
    assert not re.search(r"ERROR strongroom|/strongroom/\S+\.py\", line", operator.log_text()[before:])
    operator.start()
    backlog.wait_reason("Decrypted")
    backlog.check_secrets()


def test_sigterm_before_it_is_ready_ends_it_too(operator: OperatorProcess) -> None:
    operator.stop()
    for moment in (0.0, 0.2, 0.5, 1.0):
        operator.start(wait=False)
        time.sleep(moment)  # at any moment of the start, so also at one without a sign
        assert operator.stop(STOP_SECONDS) in (0, -15), "ended by itself, or by the signal before it was heard"
