# SPDX-License-Identifier: Apache-2.0
"""A token that crashes, vanishes or refuses its PIN: objects wait, nothing fails for good, and all heals by itself."""

import base64
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.controlplane import ControlPlane
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused, connect
from tests.operator.apicalls import ApiCalls
from tests.operator.backlog import Backlog
from tests.operator.conftest import TenantFactory
from tests.operator.masterkeys import MasterKeys, new_name
from tests.operator.tenant import CRYPTO, Tenant, condition, refusal

pytestmark = [pytest.mark.cluster, pytest.mark.hsm]

CALLERS = 8
KILLS = 4
HEALING_SECONDS = 60.0
"""A token is looked for every 30 s at the latest."""


@pytest.fixture
def keys(admin: Api) -> Iterator[MasterKeys]:
    made = MasterKeys(admin)
    yield made
    made.delete_all_made()


@pytest.fixture
def own_key(keys: MasterKeys) -> str:
    """Name for a key in a token of the test's own; deleted with it."""
    name = new_name()
    keys.made.add(name)
    return name


def workers(operator: OperatorProcess) -> list[int]:
    """The processes that have the PKCS#11 library loaded."""
    children = Path(f"/proc/{operator.pid}/task/{operator.pid}/children").read_text().split()
    return [int(pid) for pid in children]


class Caller(threading.Thread):
    """Encrypts and decrypts by the crypto API until `stop` is set, as a client that tries again on a 503."""

    def __init__(self, kubeconfig: Path, tenant: Tenant, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"caller-{number}")
        self._kubeconfig = kubeconfig
        self._path = f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}"
        self._value = base64.b64encode(f"value of caller {number}".encode()).decode()
        self._stop_asked = stop
        self.done = 0
        self.unavailable = 0
        self.failures: list[str] = []

    def run(self) -> None:
        with connect(self._kubeconfig) as api:
            while not self._stop_asked.is_set():
                try:
                    self._round_trip(api)
                    self.done += 1
                except Refused as error:
                    if error.code == 503 and error.reason == "HSMUnavailable":
                        self.unavailable += 1
                    else:
                        self.failures.append(str(error))

    def _round_trip(self, api: Api) -> None:
        blobs = self._ask(api, "encrypt", "EncryptRequest", values={"a": self._value})["encryptedData"]
        values = self._ask(api, "decrypt", "DecryptRequest", encryptedData=blobs)["values"]
        if values != {"a": self._value}:
            self.failures.append("another value than was encrypted")

    def _ask(self, api: Api, verb: str, kind: str, **spec: object) -> dict[str, dict[str, str]]:
        request = {
            "apiVersion": "crypto.strongroom.dev/v1alpha1",
            "kind": kind,
            "spec": {"scope": "Strict", "name": "db", **spec},
        }
        status: dict[str, dict[str, str]] = api("POST", f"{self._path}/{verb}", request)["status"]
        return status


def test_a_library_that_dies_again_and_again_under_load_fails_nothing(
    operator: OperatorProcess, tenant: Tenant, control_plane: ControlPlane
) -> None:
    pid, calls = operator.pid, ApiCalls(control_plane)
    losses = operator.metrics().value("strongroom_hsm_worker_losses_total")
    backlog, stop = Backlog(tenant, 100), threading.Event()
    callers = [Caller(control_plane.kubeconfig, tenant, number, stop) for number in range(CALLERS)]
    maker = threading.Thread(target=_create, args=(backlog, control_plane))
    try:
        for thread in (*callers, maker):
            thread.start()
        for kill in range(1, KILLS + 1):
            (worker,) = wait_for(lambda: workers(operator), 30, "the library's process")
            done = sum(caller.done for caller in callers)
            wait_for(lambda done=done: sum(c.done for c in callers) > done + 10, 60, "some work")  # type: ignore[misc]
            os.kill(worker, signal.SIGKILL)
            wait_for(
                lambda kill=kill: operator.metrics().value("strongroom_hsm_worker_losses_total") == losses + kill,  # type: ignore[misc]
                30,
                "the loss to be seen",
            )
        maker.join()
        backlog.wait_reason("Decrypted")
    finally:
        stop.set()
        for thread in (*callers, maker):
            thread.join()
    assert [failure for caller in callers for failure in caller.failures] == []
    assert all(caller.done > 0 for caller in callers)
    backlog.check_secrets()
    assert calls.created_secrets(tenant.namespace) == dict.fromkeys(backlog.names, 1)
    assert {line.get("errorCode") or "" for line in tenant.audit_lines(operator)} <= {"", "HSMUnavailable"}
    assert (operator.running, operator.pid) == (True, pid)


def _create(backlog: Backlog, control_plane: ControlPlane) -> None:
    with connect(control_plane.kubeconfig) as api:
        backlog.create(api)


def test_objects_wait_for_a_token_that_is_away_and_heal_when_it_is_back(
    own_operator: OwnOperator,
    new_token: SoftHsmToken,
    new_tenant: TenantFactory,
    own_key: str,
    keys: MasterKeys,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
) -> None:
    operator = own_operator(tokens=[new_token])
    pid, tenant = operator.pid, new_tenant(key=own_key)
    before = tenant.deliver("before", {"a": b"1"})
    backlog, edited = Backlog(tenant, 50), tenant.encrypt("before", {"a": b"2"})
    calls, tried = ApiCalls(control_plane), len(tenant.audit_lines(operator))
    away = new_token.tokens.with_name("away")
    new_token.tokens.rename(away)
    backlog.create()
    tenant.apply("before", edited)
    backlog.wait_reason("HSMUnavailable")
    tenant.wait_reason("before", "HSMUnavailable")
    assert {condition(item, "Reconciling")["status"] for item in backlog.states()} == {"True"}
    assert list(backlog.secrets()) == ["before"]
    assert tenant.existing_secret("before") == before
    path = f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{own_key}"
    request = {"kind": "EncryptRequest", "apiVersion": "crypto.strongroom.dev/v1alpha1"}
    spec = {"scope": "Strict", "name": "db", "values": {"a": "YQ=="}}
    refused = refusal(tenant.api, "POST", f"{path}/encrypt", request | {"spec": spec})
    assert (refused.code, refused.reason) == (503, "HSMUnavailable")
    # What depends on no token goes on.
    assert tenant.api("GET", path)["status"]["state"] == "Enabled"
    assert "keys/encrypt" in kubectl("get", "--raw", CRYPTO)
    assert operator.ready()
    kubectl("delete", "namespace", namespace, "--timeout=30s")
    # It was written down, and nobody keeps asking. Twice at most: what the token says may change while it vanishes.
    writes = calls.writes(tenant.namespace)
    assert writes["patch encryptedsecrets/status"] <= 2 * (len(backlog.names) + 1)
    assert not {"create secrets", "update secrets"} & set(writes)
    assert len(tenant.audit_lines(operator)) <= tried + 4 * (len(backlog.names) + 1)
    away.rename(new_token.tokens)
    backlog.wait_reason("Decrypted", HEALING_SECONDS)
    backlog.check_secrets()
    tenant.wait_values("before", {"a": b"2"})
    wait_for(lambda: tenant.encrypt("db", {"a": b"1"}), 10, "the crypto API", retry_on=(Refused,))
    assert (operator.running, operator.pid) == (True, pid)


def test_a_token_that_is_away_at_the_start_is_waited_for(
    own_operator: OwnOperator, new_token: SoftHsmToken, new_tenant: TenantFactory, own_key: str, keys: MasterKeys
) -> None:
    away = new_token.tokens.with_name("away")
    new_token.tokens.rename(away)
    operator = own_operator(tokens=[new_token])
    keys.create(own_key)
    waiting = keys.wait_reason(own_key, "HSMUnavailable")
    assert condition(waiting, "Reconciling")["status"] == "True"
    assert operator.ready()
    away.rename(new_token.tokens)
    keys.wait_ready(own_key, HEALING_SECONDS)
    new_tenant(key=own_key).deliver("db", {"a": b"1"})


def test_a_wrong_pin_is_tried_once_and_heals_when_the_file_is_right(
    own_operator: OwnOperator, new_token: SoftHsmToken, new_tenant: TenantFactory, own_key: str, keys: MasterKeys
) -> None:
    right = new_token.pin_file.read_bytes()
    wrong = b"9999999999"
    new_token.pin_file.write_bytes(wrong)
    operator = own_operator(tokens=[new_token])
    keys.create(own_key)
    message = condition(keys.wait_reason(own_key, "HSMPinInvalid"), "Ready")["message"]
    assert str(new_token.pin_file) in message
    # Every further login would need a process of its own, and there is none, whoever asks.
    assert workers(operator) == []
    for number in range(5):
        keys.change(own_key, description=f"look again {number}")
        keys.wait_reason(own_key, "HSMPinInvalid")
        assert workers(operator) == []
    assert operator.metrics().value("strongroom_hsm_up", token="default") == 0
    new_token.pin_file.write_bytes(right)
    keys.wait_ready(own_key, HEALING_SECONDS)
    new_tenant(key=own_key).deliver("db", {"a": b"1"})
    shown = operator.log_text() + operator.audit_file.read_text() + message
    assert wrong.decode() not in shown
    assert right.decode().strip() not in shown
