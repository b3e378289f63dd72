# SPDX-License-Identifier: Apache-2.0
"""Lists everything: once before anything is decided (the barrier), then regularly, to find what a watch lost."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from strongroom.controllers.encryptedsecret import EncryptedSecretReconciler
from strongroom.controllers.watch import MANAGED_SELECTOR
from strongroom.kube import paths
from strongroom.kube.client import METADATA_LIST_ONLY, ApiError, KubeClient
from strongroom.model import masterkey, secretfacts
from strongroom.model.ids import ObjectKey
from strongroom.model.masterkey import MasterKey

T = TypeVar("T")

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 30.0
"""How long a watch may take to deliver what a list shows before it is read singly."""


class Relister:
    """`on_master_keys` gets each complete list of CustomerMasterKeys. Belongs to one event loop."""

    def __init__(
        self,
        kube: KubeClient,
        secrets: EncryptedSecretReconciler,
        *,
        on_master_keys: Callable[[list[MasterKey], int], None],
        watching: bool,
        seconds: float,
    ) -> None:
        self._kube = kube
        self._secrets = secrets
        self._on_master_keys = on_master_keys
        self._watching = watching
        self._seconds = seconds
        self._wanted = asyncio.Event()

    def trigger(self) -> None:
        """List soon, and once more when the watches have begun: one may have lost something."""
        self._wanted.set()
        asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._wanted.set)

    async def barrier(self) -> dict[ObjectKey, int]:
        """Return when complete lists of all kinds are in, however long the API server takes."""
        while True:
            try:
                return await self._list_all()
            except ApiError as error:
                _log.warning("the first lists are not complete yet: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def run(self, listed: dict[ObjectKey, int]) -> None:
        """Compare, list again, and so on until cancelled. `listed` is the barrier's answer."""
        while True:
            await self._compare(listed)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._seconds)
            self._wanted.clear()
            listed = await self.barrier()

    async def _list_all(self) -> dict[ObjectKey, int]:
        """Take in all lists; the versions of all EncryptedSecrets."""
        items, version = await self._collect(paths.MASTER_KEYS)
        self._on_master_keys(_readable(masterkey.parse, items), version)
        if self._watching:
            items, version = await self._collect(
                paths.SECRETS, accept=METADATA_LIST_ONLY, label_selector=MANAGED_SELECTOR
            )
            self._secrets.observe_targets(_readable(secretfacts.parse, items), version)
        items, version = await self._collect(paths.ENCRYPTED_SECRETS, accept=METADATA_LIST_ONLY)
        listed = {_key(item): int(item["metadata"]["resourceVersion"]) for item in items}
        for key, known_version in self._secrets.known_keys():
            if key not in listed and known_version <= version:
                self._secrets.observe_gone(key, version)
        return listed

    async def _collect(self, path: str, **options: str) -> tuple[list[dict[str, Any]], int]:
        collected: list[dict[str, Any]] = []
        version = 0
        async for items, page_version in self._kube.list_all(path, **options):
            collected += items
            version = page_version
        return collected, version

    async def _compare(self, listed: dict[ObjectKey, int]) -> None:
        """Read singly what the watch has not delivered in good time."""
        await asyncio.sleep(_SETTLE_SECONDS)
        for key, version in listed.items():
            if not self._secrets.knows(key, version):
                try:
                    await self._secrets.refresh(key)
                except ApiError as error:
                    _log.info("%s could not be read: %s", key, error)
                    self._wanted.set()
                    return
                except Exception as error:
                    _log.error("%s cannot be used: %s", key, type(error).__name__)


def _readable(parse: Callable[[dict[str, Any]], T], items: list[dict[str, Any]]) -> list[T]:
    """All items that can be read: one odd object never stops the others."""
    read = []
    for item in items:
        try:
            read.append(parse(item))
        except Exception as error:
            name = item.get("metadata", {}).get("name")
            _log.error("an object in a list, %r, cannot be used: %s", name, type(error).__name__)
    return read


def _key(item: dict[str, Any]) -> ObjectKey:
    return ObjectKey(item["metadata"]["namespace"], item["metadata"]["name"])
