# SPDX-License-Identifier: Apache-2.0
"""The ledger: one ConfigMap per key id in the operator's namespace, outliving the CustomerMasterKey object.

It counts encryptions under each key version. A process reserves ENCRYPTIONS_BLOCK of them before it encrypts; what is
reserved counts as used, so a crash can only make the count too high.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from strongroom.errors import Reason, StrongroomError
from strongroom.kube import paths
from strongroom.kube.client import ApiError, KubeClient
from strongroom.model.ids import KeyId, KeyVersionRef
from strongroom.model.labels import MANAGED_BY_LABEL
from strongroom.model.limits import ENCRYPTIONS_BLOCK, ENCRYPTIONS_LIMIT, ENCRYPTIONS_WARN

_FIELD: Final = "ledger.json"
_CONFLICT_RETRIES: Final = 5


class Ledger:
    """Belongs to one event loop. `on_warning` is told when a version's count passes ENCRYPTIONS_WARN."""

    def __init__(self, kube: KubeClient, namespace: str, *, on_warning: Callable[[KeyVersionRef, int], None]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._on_warning = on_warning
        self._remaining: dict[KeyVersionRef, int] = {}
        self._locks: dict[KeyVersionRef, asyncio.Lock] = {}

    async def take(self, key: KeyVersionRef, count: int) -> None:
        """Account for `count` encryptions that are about to happen.

        Raises StrongroomError: KeyExhausted (rotate the key), or Unavailable if the ledger cannot be written; then
        nothing may be encrypted.
        """
        async with self._locks.setdefault(key, asyncio.Lock()):
            if self._remaining.get(key, 0) < count:
                self._remaining[key] = self._remaining.get(key, 0) + await self._reserve(key)
            self._remaining[key] -= count

    async def _reserve(self, key: KeyVersionRef) -> int:
        for _ in range(_CONFLICT_RETRIES):
            try:
                used = await self._add_block(key)
            except ApiError as error:
                if error.status == 409:  # another replica was first: read again
                    continue
                raise StrongroomError(
                    Reason.UNAVAILABLE, f"the ledger of key {key.key_id} could not be written: {error}"
                ) from error
            if used >= ENCRYPTIONS_WARN:
                self._on_warning(key, used)
            return ENCRYPTIONS_BLOCK
        raise StrongroomError(Reason.UNAVAILABLE, f"the ledger of key {key.key_id} is written by too many at a time")

    async def _add_block(self, key: KeyVersionRef) -> int:
        config_map = await self._read(key.key_id)
        try:
            ledger: dict[str, Any] = json.loads(config_map["data"][_FIELD])
            version = ledger["versions"].setdefault(str(key.version), {"encryptions": 0})
            version["encryptions"] = int(version["encryptions"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise StrongroomError(
                Reason.UNAVAILABLE,
                f"the ledger {config_map['metadata']['name']} in namespace {self._namespace} cannot be read",
                hint="Restore the ConfigMap: without it nobody knows how much the key has encrypted",
            ) from None
        if version["encryptions"] + ENCRYPTIONS_BLOCK > ENCRYPTIONS_LIMIT:
            raise StrongroomError(
                Reason.KEY_EXHAUSTED,
                f"version {key.version} of key {key.key_id} has encrypted {version['encryptions']} values, the most "
                "that random nonces allow",
                hint="Encrypt under a new CustomerMasterKey",
            )
        version["encryptions"] += ENCRYPTIONS_BLOCK
        config_map["data"][_FIELD] = json.dumps(ledger, sort_keys=True)
        if "resourceVersion" in config_map["metadata"]:
            await self._kube.replace(
                f"{paths.config_maps(self._namespace)}/{config_map['metadata']['name']}", config_map
            )
        else:
            await self._kube.create(paths.config_maps(self._namespace), config_map)
        return int(version["encryptions"])

    async def _read(self, key_id: KeyId) -> dict[str, Any]:
        name = ledger_name(key_id)
        try:
            return await self._kube.get(f"{paths.config_maps(self._namespace)}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self._namespace, "labels": {MANAGED_BY_LABEL: "strongroom"}},
            "data": {_FIELD: json.dumps({"keyId": str(key_id), "versions": {}})},
        }


def ledger_name(key_id: KeyId) -> str:
    """Name of a key's ledger."""
    return f"strongroom-ledger-{key_id}"
