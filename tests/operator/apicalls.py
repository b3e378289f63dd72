# SPDX-License-Identifier: Apache-2.0
"""What the operator asked of the API server, from kube-apiserver's own audit log."""

import json
from collections import Counter
from typing import Any

from testbed.controlplane import ControlPlane

OPERATOR = "system:serviceaccount:strongroom:strongroom"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class ApiCalls:
    """The calls since this object was made."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._log = control_plane.audit_log
        self._start = self._log.stat().st_size

    def all(self, namespace: str = "") -> list[dict[str, Any]]:
        """Answered calls of the operator, oldest first; those about one namespace if it is given."""
        with self._log.open("rb") as file:
            file.seek(self._start)
            # The last line may be half written.
            events = [json.loads(line) for line in file if line.endswith(b"\n")]
        return [
            event
            for event in events
            if event["user"]["username"] == OPERATOR
            and event["stage"] == "ResponseComplete"
            and (not namespace or event.get("objectRef", {}).get("namespace") == namespace)
        ]

    def count(self, verb: str, resource: str, namespace: str = "") -> int:
        """How many calls with this verb to this resource (`encryptedsecrets/status`), answered well or not."""
        return sum(event["verb"] == verb and resource_of(event) == resource for event in self.all(namespace))

    def writes(self, namespace: str) -> Counter[str]:
        """Writes in the namespace: `create secrets` → how many."""
        return Counter(
            f"{event['verb']} {resource_of(event)}" for event in self.all(namespace) if event["verb"] in WRITES
        )

    def created_secrets(self, namespace: str) -> Counter[str]:
        """Name of Secret → how many times it was created."""
        return Counter(
            event["objectRef"]["name"]
            for event in self.all(namespace)
            if (event["verb"], resource_of(event), event["responseStatus"]["code"]) == ("create", "secrets", 201)
        )


def resource_of(event: dict[str, Any]) -> str:
    """`secrets`, `encryptedsecrets/status`, … or nothing."""
    reference = event.get("objectRef", {})
    parts = (reference.get("resource", ""), reference.get("subresource", ""))
    return "/".join(part for part in parts if part)
