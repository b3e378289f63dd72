# SPDX-License-Identifier: Apache-2.0
"""Every token's library hangs in every call: the cluster goes on, nothing restarts but workers, and all heals."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.shimmedtoken import ShimmedToken
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused
from tests.operator.backlog import Backlog
from tests.operator.conftest import TenantFactory
from tests.operator.masterkeys import MasterKeys, new_name
from tests.operator.tenant import CRYPTO, Tenant, refusal

pytestmark = [pytest.mark.cluster, pytest.mark.hsm]

NAMES = ("default", "hsm-1")
OBJECTS = 30
HEALING_SECONDS = 60.0
_API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.crypto.strongroom.dev"


@pytest.fixture
def keys(admin: Api) -> Iterator[MasterKeys]:
    made = MasterKeys(admin)
    yield made
    made.delete_all_made()


@pytest.fixture
def tokens(tmp_path: Path) -> list[ShimmedToken]:
    return [ShimmedToken(SoftHsmToken(tmp_path / name, label=name), tmp_path / f"{name}-shim") for name in NAMES]


def api_service_available(api: Api) -> bool:
    conditions = api("GET", _API_SERVICE)["status"]["conditions"]
    return [item["status"] for item in conditions if item["type"] == "Available"] == ["True"]


def check_untouched(operator: OperatorProcess, pid: int, api: Api, kubectl: Kubectl, kept: list[Any]) -> bool:
    """What must be so at every moment of a hang. True, for a condition to wait for."""
    assert (operator.running, operator.pid) == (True, pid)
    assert operator.ready()
    assert api_service_available(api)
    assert "keys/encrypt" in kubectl("get", "--raw", CRYPTO)
    for tenant, secret in kept:
        assert tenant.existing_secret("before") == secret
    return True


def refused_while_away(tenant: Tenant) -> bool:
    """Whether a request to the crypto API about a key of a hung token is answered, and with 503."""
    path = f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}/encrypt"
    request = {"kind": "EncryptRequest", "apiVersion": "crypto.strongroom.dev/v1alpha1"}
    refused = refusal(
        tenant.api, "POST", path, request | {"spec": {"scope": "Strict", "name": "db", "values": {"a": "YQ=="}}}
    )
    return (refused.code, refused.reason) == (503, "HSMUnavailable")


@pytest.mark.parametrize(
    ("seconds", "timeout"),
    [
        pytest.param(20, 2.0, id="for-seconds"),
        pytest.param(300, 10.0, id="for-five-minutes", marks=[pytest.mark.endurance, pytest.mark.timeout(900)]),
    ],
)
def test_tokens_that_all_hang_hold_up_nothing_else(
    seconds: float,
    timeout: float,
    own_operator: OwnOperator,
    tokens: list[ShimmedToken],
    new_tenant: TenantFactory,
    keys: MasterKeys,
    admin: Api,
    kubectl: Kubectl,
) -> None:
    configured = [
        token.config(name) | {"operationTimeoutSeconds": timeout} for token, name in zip(tokens, NAMES, strict=True)
    ]
    operator = own_operator(tokens=tokens, overrides={"hsms": configured})
    pid, restarts = operator.pid, operator.metrics().value("strongroom_watch_restarts_total")
    tenants = [new_tenant(key=new_name(), hsm=name) for name in NAMES]
    keys.made.update(tenant.key for tenant in tenants)
    kept = [(tenant, tenant.deliver("before", {"a": b"1"})) for tenant in tenants]
    backlogs = [Backlog(tenant, OBJECTS) for tenant in tenants]

    for token in tokens:
        token.shim.set("*", hangs=True)
    started = time.monotonic()
    for backlog in backlogs:
        backlog.create()
    for backlog in backlogs:
        backlog.wait_reason("HSMUnavailable")
    for number, tenant in enumerate(tenants):
        assert refused_while_away(tenant)
        namespace = f"{tenant.namespace}-{number}"
        kubectl("create", "namespace", namespace)
        kubectl("delete", "namespace", namespace, "--timeout=30s")
    wait_for(
        lambda: check_untouched(operator, pid, admin, kubectl, kept) and time.monotonic() - started > seconds,
        seconds + 60,
        "the hang to last",
        interval=1,
    )
    lost = sum(operator.metrics().value("strongroom_hsm_worker_losses_total", token=name) for name in NAMES)
    assert lost >= len(NAMES), "a worker that hangs is given up"
    assert all(set(backlog.secrets()) == {"before"} for backlog in backlogs)

    for token in tokens:
        token.shim.clear("*")
    ended = time.monotonic()
    for tenant, backlog in zip(tenants, backlogs, strict=True):
        backlog.wait_reason("Decrypted", HEALING_SECONDS)
        wait_for(lambda tenant=tenant: tenant.encrypt("db", {"a": b"1"}), 10, "the API", retry_on=(Refused,))  # type: ignore[misc]
    print(f"hung for {seconds:g} s; {lost:g} workers given up; healed {time.monotonic() - ended:.1f} s after the end")
    for backlog in backlogs:
        backlog.check_secrets()
    check_untouched(operator, pid, admin, kubectl, kept)
    assert operator.metrics().value("strongroom_watch_restarts_total") == restarts
