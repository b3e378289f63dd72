# SPDX-License-Identifier: Apache-2.0
"""CustomerMasterKeys, and the material behind them as another program sees it in the token."""

import os
import secrets
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for
from tests.operator.api import Api
from tests.operator.tenant import KMS, REACTION_SECONDS, condition

_OUTSIDER = Path(__file__).with_name("outsider.py")
_KEYS = f"{KMS}/customermasterkeys"


def new_name() -> str:
    """A name that no other key has."""
    return f"key-{secrets.token_hex(4)}"


class MasterKeys:
    """All keys, as administrator."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.made: set[str] = set()

    def create(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create one; `spec` adds and replaces fields."""
        self.made.add(name)
        created: dict[str, Any] = self._api(
            "POST",
            _KEYS,
            {
                "apiVersion": "kms.strongroom.dev/v1alpha1",
                "kind": "CustomerMasterKey",
                "metadata": {"name": name},
                "spec": {"hsm": "default", "keySpec": "AES_256", "state": "Enabled"} | spec,
            },
        )
        return created

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of its spec."""
        self._api.patch(f"{_KEYS}/{name}", {"spec": spec})

    def get(self, name: str) -> dict[str, Any]:
        """It, as it is."""
        found: dict[str, Any] = self._api("GET", f"{_KEYS}/{name}")
        return found

    def delete(self, name: str) -> None:
        """Delete the object; its material stays in the token."""
        self._api("DELETE", f"{_KEYS}/{name}")

    def delete_all_made(self) -> None:
        """Delete what was made here and is still there."""
        for name in self.made:
            if self._api.find(f"{_KEYS}/{name}"):
                self.delete(name)

    def wait_reason(self, name: str, reason: str, seconds: float = REACTION_SECONDS) -> dict[str, Any]:
        """It, once Ready has this reason for its present generation."""

        def reached() -> dict[str, Any] | None:
            latest = self.get(name)
            current = latest["status"].get("observedGeneration") == latest["metadata"]["generation"]
            return latest if current and condition(latest, "Ready").get("reason") == reason else None

        return wait_for(reached, seconds, f"key {name} to be {reason}", interval=0.05)

    def wait_ready(self, name: str, seconds: float = REACTION_SECONDS) -> dict[str, Any]:
        """It, once it is ready."""
        return self.wait_reason(name, "KeyReady", seconds)


@dataclass(frozen=True, slots=True)
class Material:
    """One object in the token."""

    cka_id: str
    """In hexadecimal."""
    label: str


class Outsider:
    """Another program with the token's PIN."""

    def __init__(self, token: SoftHsmToken) -> None:
        self._token = token

    def materials(self, *, name: str = "", key_id: str = "") -> list[Material]:
        """The keys whose label bears this CustomerMasterKey's name, or whose CKA_ID begins with this id."""
        prefix = uuid.UUID(key_id).hex if key_id else ""
        lines = [line.partition(" ") for line in self._run("list").splitlines()]
        found = [Material(cka_id, label) for cka_id, _, label in lines]
        return [item for item in found if item.cka_id.startswith(prefix) and (not name or f"/{name}/" in item.label)]

    def generate(self, material: Material) -> None:
        """Make a key of this id and label, whatever is there already."""
        self._run("generate", material.cka_id, material.label)

    def destroy(self, material: Material) -> None:
        """Destroy the keys of exactly this id and label."""
        self._run("destroy", material.cka_id, material.label)

    def _run(self, action: str, *arguments: str) -> str:
        token = self._token
        done = subprocess.run(
            [sys.executable, _OUTSIDER, action, token.module, token.label, token.pin_file, *arguments],
            env=os.environ | token.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def cka_id(key_id: str, version: int = 1) -> str:
    """CKA_ID of a key version, in hexadecimal."""
    return uuid.UUID(key_id).hex + version.to_bytes(4).hex()
