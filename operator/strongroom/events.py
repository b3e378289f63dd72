# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Events (events.k8s.io/v1): the human view of what the audit log records.

Recording never blocks and never fails an operation. The same event again within ten minutes becomes a series; sending
is paced, so that a large backlog does not double the writes to the API server.
"""

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Any, Final

from strongroom.kube import paths
from strongroom.kube.client import ApiError, KubeClient, PatchType
from strongroom.model.labels import EVENT_SOURCE
from strongroom.model.principal import ObjectReference

_log = logging.getLogger(__name__)

_SERIES_SECONDS: Final = 600.0
"""How long equal events are one series; client-go's recorder uses six minutes."""
_PENDING_LIMIT: Final = 10_000
_PER_SECOND: Final = 25.0
_BURST: Final = 50.0
_MAX_NOTE_BYTES: Final = 1024
"""events.k8s.io/v1 refuses longer notes."""
_CLUSTER_SCOPED_NAMESPACE: Final = "default"
"""Where Kubernetes keeps Events about cluster-scoped objects."""


@unique
class EventType(StrEnum):
    """Types that kubectl knows."""

    NORMAL = "Normal"
    WARNING = "Warning"


_Key = tuple[str, EventType, str, str]


@dataclass(slots=True)
class _Pending:
    regarding: ObjectReference
    type: EventType
    reason: str
    action: str
    note: str
    count: int
    last: str
    posted: str = ""
    """Name of the Event once it exists."""
    posted_at: float = 0.0


class EventRecorder:
    """Queues, aggregates and sends. `run` is one task for the life of the process."""

    def __init__(self, kube: KubeClient, instance: str, *, on_fate: Callable[[str], None]) -> None:
        self._kube = kube
        self._instance = instance
        self._on_fate = on_fate
        self._pending: OrderedDict[_Key, _Pending] = OrderedDict()
        self._series: OrderedDict[_Key, _Pending] = OrderedDict()
        self._wake = asyncio.Event()
        self._tokens = _BURST
        self._refilled = time.monotonic()

    def record(self, regarding: ObjectReference, type: EventType, *, reason: str, action: str, note: str) -> None:  # noqa: A002
        """Queue one event about an object. Drops, counted, when too many wait."""
        note = note.encode()[:_MAX_NOTE_BYTES].decode(errors="ignore")
        key = (regarding.uid, type, reason, note)
        now = _micro_time()
        event = self._pending.get(key) or self._recent(key)
        if event is None:
            if len(self._pending) >= _PENDING_LIMIT:
                self._on_fate("dropped")
                return
            event = _Pending(regarding, type, reason, action, note, count=0, last=now)
        event.count += 1
        event.last = now
        self._pending[key] = event
        self._wake.set()

    async def run(self) -> None:
        """Send what is queued, at most _PER_SECOND; returns when cancelled."""
        while True:
            await self._wake.wait()
            while self._pending:
                await self._pace()
                key, event = self._pending.popitem(last=False)
                await self._send(key, event)
            self._wake.clear()

    async def _pace(self) -> None:
        """A token bucket: _BURST at once, _PER_SECOND in the long run."""
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _PER_SECOND)
        self._refilled = now
        if self._tokens < 1.0:
            await asyncio.sleep((1.0 - self._tokens) / _PER_SECOND)
        self._tokens -= 1.0

    def _recent(self, key: _Key) -> _Pending | None:
        event = self._series.get(key)
        if event and time.monotonic() - event.posted_at <= _SERIES_SECONDS:
            return event
        self._series.pop(key, None)
        return None

    async def _send(self, key: _Key, event: _Pending) -> None:
        namespace = event.regarding.namespace or _CLUSTER_SCOPED_NAMESPACE
        try:
            if event.posted:
                series = {"series": {"count": event.count, "lastObservedTime": event.last}}
                await self._kube.patch(f"{paths.events(namespace)}/{event.posted}", PatchType.MERGE, series)
            else:
                name = f"{event.regarding.name[:200]}.{uuid.uuid4().hex[:16]}"
                event.posted_at = time.monotonic()
                self._series[key] = event  # the same event while this is under way becomes a series
                await self._kube.create(paths.events(namespace), self._body(event, namespace, name))
                event.posted = name
                while len(self._series) > _PENDING_LIMIT:
                    self._series.popitem(last=False)
        except ApiError as error:
            self._series.pop(key, None)
            self._on_fate("failed")
            _log.info("an event about %s could not be written: %s", event.regarding.name, error)
        else:
            self._on_fate("written")

    def _body(self, event: _Pending, namespace: str, name: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": event.last,
            "reportingController": EVENT_SOURCE,
            "reportingInstance": self._instance,
            "action": event.action,
            "reason": event.reason,
            "type": event.type.value,
            "note": event.note,
            "regarding": {
                "apiVersion": event.regarding.api_version,
                "kind": event.regarding.kind,
                "namespace": event.regarding.namespace,
                "name": event.regarding.name,
                "uid": event.regarding.uid,
                "resourceVersion": event.regarding.resource_version,
            },
        }
        if event.count > 1:
            body["series"] = {"count": event.count, "lastObservedTime": event.last}
        return body


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
