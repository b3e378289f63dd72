# SPDX-License-Identifier: Apache-2.0
"""Reads CustomerMasterKeys live, so that a change of state acts on the next operation."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from strongroom.errors import Reason, StrongroomError
from strongroom.kube import paths
from strongroom.kube.client import ApiError, KubeClient
from strongroom.model import masterkey
from strongroom.model.masterkey import MasterKey

API_MAX_AGE_SECONDS: Final = 0.1
"""Crypto requests share one read of a key in 100 ms."""
RECONCILER_MAX_AGE_SECONDS: Final = 1.0
"""The reconciler may lag a second, so that a backlog costs a read a second a key, not one an object."""


@dataclass(frozen=True, slots=True)
class _Read:
    key: MasterKey
    at: float


class KeyReader:
    """Shared, short-lived reads. Nothing is ever served that is older than the caller allows."""

    def __init__(self, kube: KubeClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._monotonic = monotonic
        self._reads: dict[str, _Read] = {}
        self._reading: dict[str, tuple[asyncio.Task[MasterKey], float]] = {}

    async def get(self, name: str, *, max_age: float = API_MAX_AGE_SECONDS) -> MasterKey:
        """The key as it stood at most `max_age` seconds ago.

        Raises StrongroomError: KeyNotFound, or Unavailable if the API server does not answer; the caller then refuses.
        """
        now = self._monotonic()
        cached = self._reads.get(name)
        if cached and now - cached.at <= max_age:
            return cached.key
        task, started = self._reading.get(name, (None, now))
        if task is None or now - started > max_age:  # a read that began long ago may answer with what held then
            task = asyncio.create_task(self._read(name, now))
            self._reading[name] = task, now
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """The key is known to have changed: the next read is live, whatever its age limit."""
        self._reads.pop(name, None)
        self._reading.pop(name, None)

    async def list(self) -> list[MasterKey]:
        """All keys, live. Raises StrongroomError (Unavailable)."""
        keys: list[MasterKey] = []
        try:
            async for items, _ in self._kube.list_all(paths.MASTER_KEYS):
                keys += [masterkey.parse(item) for item in items]
        except ApiError as error:
            raise _unavailable("master keys", error) from error
        return keys

    async def _read(self, name: str, started: float) -> MasterKey:
        """The age counts from before the request: the answer is at least as new."""
        try:
            key = masterkey.parse(await self._kube.get(paths.master_key(name)))
        except ApiError as error:
            if error.status == 404:
                raise StrongroomError(
                    Reason.KEY_NOT_FOUND,
                    f"there is no CustomerMasterKey {name!r}",
                    hint="Create it, or correct the name; 'strongroom keys list' shows what there is",
                ) from error
            raise _unavailable(f"the CustomerMasterKey {name!r}", error) from error
        finally:
            reading = self._reading.get(name)
            current = reading is not None and reading[0] is asyncio.current_task()
            if current:
                del self._reading[name]
        if current:  # not forgotten meanwhile: what was read may be shared
            self._reads[name] = _Read(key, started)
        return key


def _unavailable(what: str, error: ApiError) -> StrongroomError:
    return StrongroomError(Reason.UNAVAILABLE, f"{what} could not be read: {error}", hint="This is retried")
