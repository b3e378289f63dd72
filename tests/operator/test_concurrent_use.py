# SPDX-License-Identifier: Apache-2.0
"""Many at a time: the latest state wins, nobody gets another's value, and one tenant's many hold up no other's one."""

import base64
import threading
from pathlib import Path

import pytest

from testbed.controlplane import ControlPlane
from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.api import connect
from tests.operator.backlog import Backlog
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import CRYPTO, GONE_SECONDS, Tenant

pytestmark = [pytest.mark.cluster, pytest.mark.hsm, pytest.mark.usefixtures("operator")]

CALLERS = 8
ROUNDS = 40
CHANGES = 30


@pytest.mark.parametrize("name", [f"db-{number}" for number in range(5)])
def test_the_last_of_many_quick_changes_is_what_stays(name: str, tenant: Tenant) -> None:
    blobs = [tenant.encrypt(name, {f"key-{number % 3}": b"%d" % number}) for number in range(CHANGES)]
    for blob in blobs:
        tenant.apply(name, blob)
    tenant.wait_ready(name)
    last = CHANGES - 1
    assert tenant.values(name) == {f"key-{last % 3}": b"%d" % last}


def test_an_object_made_anew_again_and_again_ends_with_its_last_values(tenant: Tenant) -> None:
    blobs = [tenant.encrypt("db", {"a": b"%d" % number}) for number in range(10)]
    for blob in blobs:
        tenant.apply("db", blob)
        tenant.api("DELETE", tenant.path("db"))
    tenant.apply("db", blobs[-1])
    tenant.wait_values("db", {"a": b"9"})
    tenant.wait_ready("db")


class _Caller(threading.Thread):
    """Encrypts and decrypts values that only it has."""

    def __init__(self, kubeconfig: Path, tenant: Tenant, number: int) -> None:
        super().__init__(name=f"caller-{number}")
        self._kubeconfig = kubeconfig
        self._path = f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}"
        self._number = number
        self.right = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with connect(self._kubeconfig) as api:
                for turn in range(ROUNDS):
                    value = base64.b64encode(f"{self._number}/{turn}".encode() * (turn + 1)).decode()
                    request = {"apiVersion": "crypto.strongroom.dev/v1alpha1", "kind": "EncryptRequest"}
                    place = {"scope": "Strict", "name": f"of-{self._number}"}
                    sealed = api("POST", f"{self._path}/encrypt", request | {"spec": place | {"values": {"a": value}}})
                    blobs = sealed["status"]["encryptedData"]
                    request["kind"] = "DecryptRequest"
                    opened = api("POST", f"{self._path}/decrypt", request | {"spec": place | {"encryptedData": blobs}})
                    self.right += opened["status"]["values"] == {"a": value}
        except Exception as error:
            self.error = error


def test_concurrent_callers_get_their_own_values(
    operator: OperatorProcess, tenant: Tenant, control_plane: ControlPlane
) -> None:
    losses = operator.metrics().value("strongroom_hsm_worker_losses_total")
    callers = [_Caller(control_plane.kubeconfig, tenant, number) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [caller.error for caller in callers] == [None] * CALLERS
    assert [caller.right for caller in callers] == [ROUNDS] * CALLERS
    assert operator.metrics().value("strongroom_hsm_worker_losses_total") == losses


def test_one_tenants_backlog_does_not_hold_up_another(operator: OperatorProcess, new_tenant: TenantFactory) -> None:
    busy, quiet = new_tenant(), new_tenant()
    backlog, blobs = Backlog(busy, 300), quiet.encrypt("db", {"a": b"1"})
    operator.stop()
    backlog.create()
    quiet.apply("db", blobs)
    operator.start(wait=False)
    wait_for(lambda: quiet.secret("db"), 60, "the one Secret", interval=0)
    assert len(backlog.secrets()) < len(backlog.names)
    backlog.wait_reason("Decrypted")


def test_two_tenants_with_the_same_names_have_nothing_in_common(new_tenant: TenantFactory) -> None:
    one, other = new_tenant(), new_tenant()
    one.deliver("db", {"a": b"1"})
    other.deliver("db", {"a": b"2"})
    one.api("DELETE", one.path("db"))
    wait_for(lambda: one.secret("db") is None, GONE_SECONDS, "the garbage collector")
    assert other.values("db") == {"a": b"2"}
