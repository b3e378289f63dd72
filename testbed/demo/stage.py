# SPDX-License-Identifier: Apache-2.0
"""What the steps share: control plane, token, operator, people, and the Secrets as they were before encryption."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed import REPOSITORY, users
from testbed.controlplane import ControlPlane
from testbed.demo.originals import Original
from testbed.demo.report import Report, StepFailed, expect
from testbed.demo.shell import Shell
from testbed.installation import Installation
from testbed.operator import OperatorProcess
from testbed.softhsm import SoftHsmToken
from testbed.waiting import WaitTimeout, wait_for

_MEMORY = Path("/dev/shm")
_POLL_SECONDS = 0.3


class Stage:
    """Steps fill the attributes in order; `close` undoes everything. Plaintext exists in `workspace` alone: in memory
    where there is /dev/shm, readable by its owner only, removed at the end.
    """

    control_plane: ControlPlane
    token: SoftHsmToken
    installation: Installation
    operator: OperatorProcess
    admin: Shell
    alice: Shell
    """A developer: group developers."""
    bob: Shell
    """May do much in namespace shop, but nothing with keys."""
    carol: Shell
    """A developer of namespace website only."""
    dave: Shell
    """Holds the break-glass permission in namespace shop, once it is bound."""
    originals: Sequence[Original] = ()
    processes: Sequence[int] = ()

    def __init__(self, report: Report) -> None:
        self.report = report
        parent = _MEMORY if _MEMORY.is_dir() else None
        self.workspace = Path(tempfile.mkdtemp(prefix="strongroom-demo-", dir=parent))
        (self.workspace / "examples").symlink_to(REPOSITORY / "examples")
        self._closing: list[Callable[[], object]] = [lambda: shutil.rmtree(self.workspace, ignore_errors=True)]

    def on_close(self, action: Callable[[], object]) -> None:
        """Have something undone by `close`, before what was registered earlier."""
        self._closing.append(action)

    def close(self) -> None:
        """Stop and remove everything. Does nothing a second time."""
        while self._closing:
            self._closing.pop()()

    def person(self, name: str, groups: Sequence[str] = ()) -> Shell:
        """Someone with a client certificate, and no permissions but those bound to name and groups."""
        kubectl = self.control_plane.kubectl.with_kubeconfig(users.certificate_user(self.control_plane, name, groups))
        return Shell(self.report, name, kubectl, self.control_plane.binaries.kubectl, self.workspace)

    def secret(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A Secret, or None if there is none."""
        found = self.admin.kubectl.json(
            "get", "secrets", "--namespace", namespace, f"--field-selector=metadata.name={name}"
        )
        items: list[Mapping[str, Any]] = found["items"]
        return items[0] if items else None

    def secrets(self, namespace: str) -> dict[str, Mapping[str, Any]]:
        """All Secrets of a namespace, by name."""
        items = self.admin.kubectl.json("get", "secrets", "--namespace", namespace)["items"]
        return {item["metadata"]["name"]: item for item in items}

    def differences(self) -> list[str]:
        """In what the Secrets of namespace shop differ from the originals; empty if in nothing."""
        secrets = self.secrets("shop")
        return [text for original in self.originals for text in original.differences(secrets.get(original.name, {}))]

    def ready_condition(self, resource: str, name: str, namespace: str = "") -> Mapping[str, Any]:
        """The condition Ready of this generation of an object, empty before the operator has seen it."""
        where = ("--namespace", namespace) if namespace else ()
        item = self.admin.kubectl.json("get", resource, name, *where)
        if item.get("status", {}).get("observedGeneration") != item["metadata"]["generation"]:
            return {}
        conditions: list[Mapping[str, Any]] = item["status"].get("conditions", [])
        return next((found for found in conditions if found["type"] == "Ready"), {})

    def wait_reason(
        self, resource: str, name: str, reason: str, namespace: str = "", *, seconds: float = 30.0
    ) -> Mapping[str, Any]:
        """Wait until Ready of this generation has this reason, and return it. Raises StepFailed."""

        def with_reason() -> Mapping[str, Any]:
            found = self.ready_condition(resource, name, namespace)
            seen.append(found)
            return found if found.get("reason") == reason else {}

        seen: list[Mapping[str, Any]] = []
        try:
            return wait_for(with_reason, seconds, f"{resource} {name} to be {reason}", interval=_POLL_SECONDS)
        except WaitTimeout as error:
            raise StepFailed(f"{error}\nits condition Ready: {seen[-1]}") from None

    def wait_restored(self, what: str, *, seconds: float = 30.0) -> None:
        """Wait until every Secret of namespace shop is as its original. Raises WaitTimeout."""
        wait_for(lambda: not self.differences(), seconds, what, interval=_POLL_SECONDS)

    def wait_all_ready(self, namespace: str, *, seconds: float = 60.0) -> None:
        """Wait until every EncryptedSecret of the namespace is Ready. Raises WaitTimeout."""
        items = self.admin.kubectl.json("get", "encryptedsecrets", "--namespace", namespace)["items"]
        expect(items, f"there is no EncryptedSecret in namespace {namespace}")
        for item in items:
            self.wait_reason("encryptedsecret", item["metadata"]["name"], "Decrypted", namespace, seconds=seconds)

    def audit(self, **fields: str) -> list[Mapping[str, Any]]:
        """Audit records of the operator whose fields have these values."""
        return [
            record
            for record in self.operator.audit_lines()
            if all(record.get(field) == value for field, value in fields.items())
        ]

    def show_record(self, record: Mapping[str, Any]) -> None:
        """Print an audit record on one line, without what makes it long."""
        self.report.output(_in_short(record), whole=True)

    def expect_recorded(self, event: str, outcome: str, error_code: str, username: str) -> None:
        """The audit log holds such a record; the last one is printed. Raises StepFailed."""
        records = [
            record
            for record in self.audit(eventName=event, outcome=outcome, errorCode=error_code)
            if record["principal"]["username"] == username
        ]
        expect(records, f"the audit log should hold {event} {outcome} {error_code} of {username}")
        self.show_record(records[-1])


def _in_short(record: Mapping[str, Any]) -> str:
    """A record on one line, without what makes it long."""
    principal = record.get("principal") or {}
    target = record.get("object") or {}
    sizes = ", ".join(f"{value['dataKey']} {value['bytes']} bytes" for value in record["request"]["values"])
    parts = (
        record["time"],
        record["eventName"],
        record["outcome"],
        record["errorCode"],
        f"principal={principal.get('username', '-')}",
        f"key={record['key']['name']}",
        f"object={target['namespace']}/{target['name']}" if target else "",
        f"values=({sizes})" if sizes else "",
        f"hash={record['hash'][:12]}…",
    )
    return " ".join(part for part in parts if part)
