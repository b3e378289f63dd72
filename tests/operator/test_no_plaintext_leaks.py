# SPDX-License-Identifier: Apache-2.0
"""Plaintext is in memory, in the answer to who asked for it, and in the Secret: nowhere else, whatever goes wrong.

A canary goes every way a value can go, and is then looked for everywhere else: as it is, in base64 and in hexadecimal.
"""

import base64
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.controlplane import ControlPlane
from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import CRYPTO, KMS, Tenant, condition

pytestmark = [pytest.mark.cluster, pytest.mark.hsm]

LARGEST_FILE = 512 * 2**20
ETCD = "etcd"
"""Directory of etcd's data below the control plane's: there the Secrets are."""


class Canary:
    """A marker that occurs nowhere by chance, in every form that a program might give it."""

    def __init__(self) -> None:
        # Digits, because a JSON parser quotes a number that is too large for it.
        self.value = "".join(secrets.choice("123456789") for _ in range(48)).encode()
        # In base64 it reads differently by where it begins, and its ends depend on its neighbours.
        encoded = [base64.b64encode(b" " * shift + self.value)[4:-4] for shift in range(3)]
        self._forms = [self.value, self.value.hex().encode(), *encoded]

    def found_in(self, content: bytes) -> bool:
        return any(form in content for form in self._forms)


class Ways:
    """The ways of a value, each used once."""

    def __init__(self, tenant: Tenant, canary: Canary, operator: OperatorProcess) -> None:
        self._tenant = tenant
        self._canary = canary
        self._operator = operator

    def go(self) -> None:
        value, tenant = self._canary.value, self._tenant
        tenant.deliver("db", {"a": value, "config": b"password: " + value + b"\n"})
        self._repaired()
        self._decrypted_by_the_api()
        self._rejected_by_the_api_server()
        tenant.apply("forged", tenant.encrypt("elsewhere", {"a": value}))
        tenant.wait_reason("forged", "InvalidCiphertext")
        self._sent_in_the_wrong_place()
        self._worker_crashed()

    def _repaired(self) -> None:
        self._tenant.api("DELETE", self._tenant.secret_path("db"))
        wait_for(lambda: self._tenant.secret("db"), 30, "the Secret to come back")

    def _decrypted_by_the_api(self) -> None:
        blobs = self._tenant.encrypt("db", {"a": self._canary.value})
        values = self._post("decrypt", "DecryptRequest", name="db", encryptedData=blobs)["values"]
        assert base64.b64decode(values["a"]) == self._canary.value

    def _rejected_by_the_api_server(self) -> None:
        """Which quotes the value in its message, to whoever it answers, and in its own audit log."""
        other = Canary()
        quoted: dict[str, Any] = {
            "metadata": {"name": "quoted"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(_broken(other)).decode()},
        }
        with pytest.raises(Refused) as refused:
            self._tenant.api("POST", self._tenant.secret_path("").rstrip("/"), quoted)
        assert other.found_in(str(refused.value).encode()), "else this proves nothing"
        kind = {"template": {"type": "kubernetes.io/dockerconfigjson"}}
        self._tenant.seal("rejected", {".dockerconfigjson": _broken(self._canary)}, **kind)
        self._tenant.wait_reason("rejected", "TargetRejected")

    def _sent_in_the_wrong_place(self) -> None:
        """Requests that are refused for what is in them."""
        text = self._canary.value.decode()
        for spec in (
            {"scope": text, "name": "db", "values": {"a": "YQ=="}},
            {"scope": "Strict", "name": "db", "values": {"a": f"*{text}"}},
            {"scope": "Strict", "name": "db", "values": {"a": [text]}},
            {"scope": "Strict", "name": "db", "values": {"a": "YQ=="}, "plaintext": text},
            {"scope": "Strict", "name": "db", "values": {"a": base64.b64encode(self._canary.value * 100).decode()}},
        ):
            with pytest.raises(Refused):
                self._post("encrypt", "EncryptRequest", **spec)

    def _worker_crashed(self) -> None:
        """As a library with a fault would: with a signal that makes a core dump where that is allowed."""
        operator = self._operator
        (worker,) = Path(f"/proc/{operator.pid}/task/{operator.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGSEGV)
        wait_for(
            lambda: (
                operator.metrics().value("strongroom_hsm_worker_losses_total") == 1
                and operator.metrics().value("strongroom_hsm_up") == 1
            ),
            30,
            "another worker",
        )
        self._tenant.deliver("after", {"a": self._canary.value})

    def _post(self, verb: str, kind: str, **spec: Any) -> dict[str, Any]:
        path = f"{CRYPTO}/namespaces/{self._tenant.namespace}/keys/{self._tenant.key}/{verb}"
        request = {"apiVersion": "crypto.strongroom.dev/v1alpha1", "kind": kind, "spec": {"scope": "Strict"} | spec}
        status: dict[str, Any] = self._tenant.api("POST", path, request, fieldValidation="Strict")["status"]
        return status


def _broken(canary: Canary) -> bytes:
    """No dockerconfigjson, for a reason that quotes the canary."""
    return b'{"auths":' + canary.value + b"e999}"


@pytest.fixture
def talkative_operator(own_operator: OwnOperator) -> OperatorProcess:
    """One that logs all it can."""
    return own_operator(overrides={"logLevel": "DEBUG"})


def files_since(started: float, *directories: Path) -> Iterator[Path]:
    """Files that were written since, but etcd's."""
    for directory in directories:
        for parent, below, names in os.walk(directory):
            below[:] = [name for name in below if name != ETCD]
            for name in names:
                path = Path(parent, name)
                try:
                    status = path.lstat()
                    if path.is_file() and not path.is_symlink() and status.st_mtime >= started:
                        assert status.st_size <= LARGEST_FILE, f"{path} is too large to be looked through"
                        yield path
                except FileNotFoundError:
                    continue  # somebody else's


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError):
        return b""


def test_a_canary_is_found_where_it_must_be_only(
    talkative_operator: OperatorProcess, tenant: Tenant, control_plane: ControlPlane, token: SoftHsmToken, admin: Api
) -> None:
    operator, canary, started = talkative_operator, Canary(), time.time() - 1
    Ways(tenant, canary, operator).go()
    # What is where.
    assert canary.found_in(tenant.existing_secret("db")["data"]["a"].encode()), "in the Secret it must be"
    namespace = f"/namespaces/{tenant.namespace}"
    wait_for(
        lambda: {
            "Decrypted",
            "InvalidCiphertext",
            "TargetRejected",
        } <= {item["reason"] for item in admin("GET", f"/apis/events.k8s.io/v1{namespace}/events")["items"]},
        30,
        "the Events",
    )  # fmt: skip
    seen = {
        "the log": operator.log_text().encode(),
        "the audit log": operator.audit_file.read_bytes(),
        "kube-apiserver's audit log": control_plane.audit_log.read_bytes(),
        "metrics": repr(operator.metrics().samples).encode(),
        "Events": json.dumps(admin("GET", f"/apis/events.k8s.io/v1{namespace}/events")).encode(),
        "EncryptedSecrets": json.dumps(admin("GET", f"{KMS}{namespace}/encryptedsecrets")).encode(),
        "CustomerMasterKeys": json.dumps(admin("GET", f"{KMS}/customermasterkeys")).encode(),
        "the ledger": json.dumps(admin("GET", "/api/v1/namespaces/strongroom/configmaps")).encode(),
    }
    assert b"DEBUG" in seen["the log"]
    assert condition(tenant.get("rejected"), "Ready")["message"]
    assert b'"/apis/crypto.strongroom.dev' in seen["kube-apiserver's audit log"]
    assert [name for name, text in seen.items() if canary.found_in(text)] == []
    # And on every disk.
    directories = (control_plane.directory, operator.directory, token.directory, Path("/tmp"), Path("/dev/shm"))
    paths = set(files_since(started, *directories))
    assert {operator.log_file, control_plane.audit_log} <= paths
    assert [str(path) for path in sorted(paths) if canary.found_in(content(path))] == []


def test_no_credential_is_logged_or_shown_to_other_processes(
    talkative_operator: OperatorProcess, tenant: Tenant, token: SoftHsmToken
) -> None:
    operator = talkative_operator
    tenant.deliver("db", {"a": b"1"})
    credentials = {
        "the PIN": token.pin_file.read_bytes().strip(),
        "the token": json.loads(operator.kubeconfig.read_text())["users"][0]["user"]["token"].encode(),
    }
    workers = Path(f"/proc/{operator.pid}/task/{operator.pid}/children").read_text().split()
    assert workers
    shown = {
        "the log": operator.log_text().encode(),
        "the audit log": operator.audit_file.read_bytes(),
        "metrics": repr(operator.metrics().samples).encode(),
    }
    for pid in (str(operator.pid), *workers):
        for name in ("cmdline", "environ", "comm"):
            shown[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    for pid in workers:
        assert b"KUBECONFIG" not in shown[f"environ of {pid}"]
    assert [(what, where) for what, value in credentials.items() for where in shown if value in shown[where]] == []


def test_no_process_that_holds_plaintext_dumps_core(operator: OperatorProcess) -> None:
    pids = [str(operator.pid), *Path(f"/proc/{operator.pid}/task/{operator.pid}/children").read_text().split()]
    assert len(pids) > 1
    for pid in pids:
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (line,) = [line for line in limits if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"], f"process {pid}: {line}"


def test_an_object_that_another_tenant_wrote_tells_nothing(
    new_tenant: TenantFactory, operator: OperatorProcess
) -> None:
    """The message about a value that was copied from elsewhere says nothing of what it holds."""
    canary, one, other = Canary(), new_tenant(), new_tenant()
    blobs = one.encrypt("db", {"a": canary.value})
    other.apply("db", blobs)
    refused = other.wait_reason("db", "InvalidCiphertext")
    assert not canary.found_in(json.dumps(refused["status"]).encode())
    assert other.secret("db") is None
