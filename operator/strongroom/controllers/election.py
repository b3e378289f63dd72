# SPDX-License-Identifier: Apache-2.0
"""Leader election by a coordination.k8s.io Lease: of several replicas one reconciles.

Remote clocks are never compared: a lease counts as abandoned when this process has seen it unchanged for its whole
duration. Who cannot renew in time stops leading before anyone else may begin.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from strongroom.kube import paths
from strongroom.kube.client import ApiError, KubeClient

_log = logging.getLogger(__name__)

LEASE_NAME: Final = "strongroom"
DURATION_SECONDS: Final = 15
RENEW_DEADLINE_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 2.0
"""Lease duration, renew deadline and retry period are those of Kubernetes' own controllers (client-go)."""


class Elector:
    """One candidate. `identity` is stable over restarts of the same pod, so that a restart needs no waiting."""

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        identity: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._collection = paths.leases(namespace)
        self._path = f"{self._collection}/{LEASE_NAME}"
        self._identity = identity
        self._monotonic = monotonic
        self._seen: tuple[str, float] = ("", 0.0)
        """resourceVersion of the lease as last read, and when it was first seen in that version."""
        self._renewed = 0.0
        self._held_by_another = False

    async def acquire(self) -> None:
        """Return when this process leads, however long that takes."""
        while True:
            if await self._try():
                break
            await asyncio.sleep(_RETRY_SECONDS * random.uniform(1.0, 1.2))  # noqa: S311 - jitter, no secret
        _log.info("this replica leads")

    async def hold(self) -> None:
        """Renew until that fails for RENEW_DEADLINE_SECONDS or another holds the lease; then stop leading at once."""
        while True:
            left = self._renewed + RENEW_DEADLINE_SECONDS - self._monotonic()
            if left <= 0:
                break
            await asyncio.sleep(min(_RETRY_SECONDS, left))
            try:
                async with asyncio.timeout(max(self._renewed + RENEW_DEADLINE_SECONDS - self._monotonic(), 0)):
                    await self._try()
            except TimeoutError:
                break
            if self._held_by_another:
                break
        _log.warning("this replica leads no more: its lease was not renewed in time, or another holds it")

    async def release(self) -> None:
        """Let another replica lead at once, if this one does. Best effort, for a few seconds."""
        try:
            async with asyncio.timeout(_RETRY_SECONDS):
                lease = await self._kube.get(self._path)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"]["holderIdentity"] = ""
                    await self._kube.replace(self._path, lease)
        except (ApiError, TimeoutError) as error:
            _log.info("the lease could not be released: %s", type(error).__name__)

    async def _try(self) -> bool:
        """Acquire or renew once; True if this process now holds the lease."""
        started = self._monotonic()
        try:
            if not await self._write():
                return False
        except ApiError as error:
            _log.info("the lease could not be written: %s", error)
            return False
        self._renewed = started
        return True

    async def _write(self) -> bool:
        try:
            lease = await self._kube.get(self._path)
        except ApiError as error:
            if error.status != 404:
                raise
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": LEASE_NAME},
                "spec": self._spec({}),
            }
            await self._kube.create(self._collection, body)
            return True
        holder = lease["spec"].get("holderIdentity") or ""
        self._held_by_another = holder not in ("", self._identity) and not self._abandoned(lease)
        if self._held_by_another:
            return False
        lease["spec"] = self._spec(lease["spec"])
        await self._kube.replace(self._path, lease)  # 409 if another was first
        return True

    def _abandoned(self, lease: dict[str, Any]) -> bool:
        version, now = lease["metadata"]["resourceVersion"], self._monotonic()
        if self._seen[0] != version:
            self._seen = version, now
        return now - self._seen[1] > (lease["spec"].get("leaseDurationSeconds") or DURATION_SECONDS)

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine else 1),
        }
