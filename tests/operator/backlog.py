# SPDX-License-Identifier: Apache-2.0
"""Many encrypted secrets in one namespace."""

from typing import Any

from testbed.waiting import wait_for
from tests.operator.api import Api
from tests.operator.tenant import KMS, Tenant, condition, controller, decoded

VALUE = b"one of many"


class Backlog:
    """`count` EncryptedSecrets named `PREFIX-N`, of one value each.

    The value is encrypted when this is made; `create` makes the objects, also while no operator runs.
    """

    def __init__(self, tenant: Tenant, count: int, *, prefix: str = "many") -> None:
        self.tenant = tenant
        self.names = [f"{prefix}-{number}" for number in range(count)]
        self._blobs = tenant.encrypt("", {"a": VALUE}, scope="Namespace")
        self._path = f"{KMS}/namespaces/{tenant.namespace}/encryptedsecrets"

    def create(self, api: Api | None = None) -> None:
        """Create all; `api` for another thread's own connection."""
        for name in self.names:
            (api or self.tenant.api)("POST", self._path, self.tenant.manifest(name, self._blobs, scope="Namespace"))

    def states(self) -> list[dict[str, Any]]:
        """All of them as they are."""
        items: list[dict[str, Any]] = self.tenant.api("GET", self._path)["items"]
        return [item for item in items if item["metadata"]["name"] in set(self.names)]

    def reasons(self) -> set[str]:
        """Reasons of Ready among them; empty for one that was not looked at."""
        return {condition(item, "Ready").get("reason", "") for item in self.states()}

    def wait_reason(self, reason: str, seconds: float = 120.0) -> None:
        """Return when all have this reason."""
        wait_for(lambda: self.reasons() == {reason}, seconds, f"{len(self.names)} objects to be {reason}")

    def secrets(self) -> dict[str, dict[str, Any]]:
        """Every Secret of the namespace by its name."""
        items = self.tenant.api("GET", f"/api/v1/namespaces/{self.tenant.namespace}/secrets")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def check_secrets(self) -> None:
        """Exactly these Secrets are there, right, each with its one controller."""
        uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in self.states()}
        secrets = self.secrets()
        assert set(uids) == set(self.names)
        assert set(secrets) >= set(self.names)
        for name, uid in uids.items():
            assert decoded(secrets[name]) == {"a": VALUE}
            assert len(secrets[name]["metadata"]["ownerReferences"]) == 1
            assert controller(secrets[name])["uid"] == uid
