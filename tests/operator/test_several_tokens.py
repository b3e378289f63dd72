# SPDX-License-Identifier: Apache-2.0
"""Two tokens in one operator: each has its own keys, and what befalls one is no matter of the other's."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.controlplane import ControlPlane
from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused, connect
from tests.operator.backlog import Backlog
from tests.operator.conftest import TenantFactory
from tests.operator.masterkeys import MasterKeys, Outsider, new_name
from tests.operator.tenant import CRYPTO, Tenant, condition, refusal

pytestmark = [pytest.mark.cluster, pytest.mark.hsm]

OTHER = "hsm-1"
HEALING_SECONDS = 60.0
"""A token is looked for every 30 s at the latest."""
TIMEOUT_SECONDS = 10.0
"""After this the library of the hung token is given up."""
API_PLACES = 64
"""Requests that the crypto API serves at a time."""


@dataclass
class Two:
    """An operator, two tokens, and a tenant at each."""

    operator: OperatorProcess
    tokens: tuple[SoftHsmToken, SoftHsmToken]
    well: Tenant
    """At the token that nothing happens to."""
    ill: Tenant

    def value(self, name: str, hsm: str) -> float:
        """One of the metrics of a token."""
        return self.operator.metrics().value(name, token=hsm)

    def worker_of(self, token: SoftHsmToken) -> int:
        """The process that has this token open."""
        children = Path(f"/proc/{self.operator.pid}/task/{self.operator.pid}/children").read_text().split()
        wanted = f"SOFTHSM2_CONF={token.environment['SOFTHSM2_CONF']}".encode()
        (pid,) = [pid for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
        return int(pid)

    def check_well(self, name: str) -> None:
        """The other token serves objects and API as ever, with the process it always had."""
        started = time.monotonic()
        self.well.deliver(name, {"a": b"1"})
        assert time.monotonic() - started < TIMEOUT_SECONDS / 2
        assert self.value("strongroom_hsm_up", "default") == 1
        assert self.value("strongroom_hsm_worker_losses_total", "default") == 0


@pytest.fixture
def keys(admin: Api) -> Iterator[MasterKeys]:
    made = MasterKeys(admin)
    yield made
    made.delete_all_made()


@pytest.fixture
def two(
    own_operator: OwnOperator,
    new_token: SoftHsmToken,
    new_tenant: TenantFactory,
    keys: MasterKeys,
    tmp_path: Path,
) -> Callable[..., Two]:
    tokens = new_token, SoftHsmToken(tmp_path / "other", label=new_token.label)
    configured = [token.config(name) for token, name in zip(tokens, ("default", OTHER), strict=True)]
    for entry in configured:
        entry["operationTimeoutSeconds"] = TIMEOUT_SECONDS
    operator = own_operator(tokens=tokens, overrides={"hsms": configured})
    tenants = [new_tenant(key=new_name(), hsm=hsm) for hsm in ("default", OTHER)]
    for tenant in tenants:
        keys.made.add(tenant.key)
    return Two(operator, tokens, *tenants)


def test_each_key_is_in_the_token_that_it_names(two: Two, keys: MasterKeys) -> None:
    for tenant, token, hsm in zip((two.well, two.ill), two.tokens, ("default", OTHER), strict=True):
        tenant.deliver("db", {"a": b"1"})
        status = keys.get(tenant.key)["status"]
        assert status["hsm"]["name"] == hsm
        assert len(Outsider(token).materials(key_id=status["keyId"])) == 1
    serials = {keys.get(tenant.key)["status"]["hsm"]["serial"] for tenant in (two.well, two.ill)}
    assert len(serials) == 2


def test_key_of_a_token_that_is_not_configured_harms_no_other(two: Two, keys: MasterKeys) -> None:
    name = new_name()
    keys.create(name, hsm="elsewhere")
    message = condition(keys.wait_reason(name, "HSMUnavailable"), "Ready")["message"]
    assert "'elsewhere'" in message
    assert f"default, {OTHER}" in message
    two.check_well("db")
    two.ill.deliver("db", {"a": b"1"})


def test_token_that_is_away_is_waited_for_by_its_own_objects_alone(two: Two) -> None:
    backlog = Backlog(two.ill, 20)
    away = two.tokens[1].tokens.with_name("away")
    two.tokens[1].tokens.rename(away)
    backlog.create()
    backlog.wait_reason("HSMUnavailable")
    two.check_well("db")
    assert two.value("strongroom_hsm_up", OTHER) == 0
    away.rename(two.tokens[1].tokens)
    backlog.wait_reason("Decrypted", HEALING_SECONDS)
    backlog.check_secrets()


def test_library_that_is_killed_costs_its_own_token_alone(two: Two) -> None:
    well = two.worker_of(two.tokens[0])
    os.kill(two.worker_of(two.tokens[1]), signal.SIGKILL)
    wait_for(lambda: two.value("strongroom_hsm_worker_losses_total", OTHER) == 1, 10, "the loss to be seen")
    two.check_well("db")
    assert two.worker_of(two.tokens[0]) == well
    wait_for(lambda: two.ill.encrypt("db", {"a": b"1"}), HEALING_SECONDS, "the crypto API", retry_on=(Refused,))


def test_library_that_hangs_holds_up_its_own_token_alone(
    two: Two, keys: MasterKeys, control_plane: ControlPlane
) -> None:
    backlog = Backlog(two.ill, 100)
    hung = two.worker_of(two.tokens[1])
    os.kill(hung, signal.SIGSTOP)
    backlog.create()
    keys.create(new_name(), hsm=OTHER)
    path = f"{CRYPTO}/namespaces/{two.ill.namespace}/keys/{two.ill.key}/encrypt"
    answers: list[str] = []
    callers = [
        threading.Thread(target=_encrypt, args=(control_plane.kubeconfig, path, answers)) for _ in range(API_PLACES)
    ]
    for caller in callers:
        caller.start()
    wait_for(lambda: two.value("strongroom_hsm_waiting", OTHER) > API_PLACES / 2, 10, "requests to wait for the token")
    made = new_name()
    keys.create(made, hsm="default")
    keys.wait_ready(made, TIMEOUT_SECONDS / 2)
    two.check_well("db")
    assert two.value("strongroom_hsm_worker_losses_total", OTHER) == 0, "it hung for too short a time to show anything"
    for caller in callers:
        caller.join()
    assert set(answers) == {"HSMUnavailable", "Throttled"}
    backlog.wait_reason("Decrypted", HEALING_SECONDS)
    backlog.check_secrets()


def _encrypt(kubeconfig: Path, path: str, answers: list[str]) -> None:
    spec = {"scope": "Strict", "name": "db", "values": {"a": "YQ=="}}
    request = {"apiVersion": "crypto.strongroom.dev/v1alpha1", "kind": "EncryptRequest", "spec": spec}
    with connect(kubeconfig) as api:
        answers.append(refusal(api, "POST", path, request).reason)
