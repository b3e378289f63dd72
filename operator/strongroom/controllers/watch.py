# SPDX-License-Identifier: Apache-2.0
"""Kopf as the event source: watches in a thread and loop of their own, delivering to ours.

Kopf's handlers here only hand events over; nothing is written by Kopf. It has its own loop because it ends on a watch
error other than 410 and on a minute of server errors, and then every task in its loop is cancelled; it is started anew
while the crypto API, the queues and the tokens go on.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, Final

import aiohttp
import kopf

from strongroom.kube import paths
from strongroom.kube.client import METADATA_LIST_ONLY, METADATA_ONLY, PAGE_SIZE
from strongroom.kube.credentials import Credentials
from strongroom.model.labels import (
    ENCRYPTED_SECRET_PLURAL,
    KMS_GROUP,
    MANAGED_LABEL,
    MASTER_KEY_PLURAL,
    VERSION,
)

_log = logging.getLogger(__name__)

MANAGED_SELECTOR: Final = f"{MANAGED_LABEL}=true"
_RESTART_SECONDS: Final = (0.5, 5.0)
"""Bounds of the pause before Kopf is started anew."""
_PROBE_SECONDS: Final = 2.0
_REQUEST_SECONDS: Final = 60
_STOP_SECONDS: Final = 5.0
_CANCEL_SECONDS: Final = 0.5
"""After this long what is left of Kopf's tasks is cancelled once more."""
_WATCH_SECONDS: Final = 300
"""How long the API server keeps one watch open."""


@unique
class Kind(Enum):
    """What is watched."""

    MASTER_KEY = MASTER_KEY_PLURAL
    ENCRYPTED_SECRET = ENCRYPTED_SECRET_PLURAL
    SECRET = "secrets"  # noqa: S105 - the resource's name


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event. `initial`: from a listing, not a change. `body` of a Secret is metadata alone."""

    kind: Kind
    initial: bool
    deleted: bool
    body: dict[str, Any]


class Watches:
    """Delivers events to the loop that `start` was called in; `deliver` gets each once, in order per object.

    `on_restart` is called in that loop when Kopf had to be started anew, so that what fell into the gap can be listed.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        secrets: bool,
        deliver: Callable[[WatchEvent], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._credentials = credentials
        self._secrets = secrets
        self._deliver = deliver
        self._on_restart = on_restart
        self._events: deque[WatchEvent] = deque()
        self._stop = threading.Event()
        self._stop_kopf: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Stop watching; returns when the thread has ended, or after a few seconds: it ends with the process."""
        self._stop.set()
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended already
            self._stop_kopf()
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether events can come; not before `start`."""
        return self._thread.is_alive()

    # In Kopf's thread

    def _run(self) -> None:
        asyncio.run(self._supervise())

    async def _supervise(self) -> None:
        loop, stop_flag = asyncio.get_running_loop(), asyncio.Event()
        self._stop_kopf = lambda: loop.call_soon_threadsafe(stop_flag.set)
        first = True
        while not self._stop.is_set():
            try:
                await self._until_served()
                if not first:
                    self._in_our_loop(self._on_restart)
                first = False
                await self._run_kopf(stop_flag)
            except Exception as error:
                _log.warning("the watches ended (%s) and are started anew", type(error).__name__)
            if not self._stop.is_set():
                await asyncio.sleep(random.uniform(*_RESTART_SECONDS))  # noqa: S311 - jitter, no secret

    async def _run_kopf(self, stop_flag: asyncio.Event) -> None:
        """Until the first of Kopf's tasks ends; returns, or raises its error, when all of them are gone.

        Not `kopf.operator`: when that ends, it cancels every task once, also the one whose call a closing watch awaits
        (aiotasks.Scheduler), and waits for ever; nothing would be watched until somebody restarts the process.
        """
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry(), settings=_settings(), clusterwide=True, standalone=True, stop_flag=stop_flag
        )
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while left := asyncio.all_tasks() - ours:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_CANCEL_SECONDS)
        for task in ended:
            task.result()

    async def _until_served(self) -> None:
        """Kopf looks only once which resources there are: wait until the API server serves ours."""
        async with self._session() as session:
            while not self._stop.is_set():
                try:
                    for path in (paths.MASTER_KEYS, paths.ENCRYPTED_SECRETS):
                        async with session.get(f"{self._credentials.server}{path}?limit=1") as response:
                            response.raise_for_status()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    _log.info("waiting for the API server and the CRDs: %s", type(error).__name__)
                    await asyncio.sleep(_PROBE_SECONDS)
                else:
                    return

    def _registry(self) -> kopf.OperatorRegistry:
        """The handlers, each of which hands over and returns."""
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return kopf.AiohttpSession(server=self._credentials.server, aiohttp_session=self._session())

        resources = {Kind.MASTER_KEY: (KMS_GROUP, VERSION), Kind.ENCRYPTED_SECRET: (KMS_GROUP, VERSION)}
        if self._secrets:
            resources[Kind.SECRET] = ("", "v1")
        for kind, (group, version) in resources.items():

            async def on_event(event: Any, kind: Kind = kind, **_: Any) -> None:
                self._hand_over(kind, event["type"], dict(event["object"]))

            kopf.on.event(group, version, kind.value, registry=registry, id=kind.value)(on_event)
        return registry

    def _hand_over(self, kind: Kind, event_type: str | None, body: dict[str, Any]) -> None:
        event = WatchEvent(kind, initial=event_type is None, deleted=event_type == "DELETED", body=body)
        self._events.append(event)
        if len(self._events) == 1:  # otherwise a call to take them all in is on its way
            self._in_our_loop(self._take_in)

    def _in_our_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _session(self) -> aiohttp.ClientSession:
        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            if authorization := self._credentials.authorization():
                request.headers["Authorization"] = authorization
            if request.url.path == paths.SECRETS:
                listing = "watch" not in request.url.query
                request.headers["Accept"] = METADATA_LIST_ONLY if listing else METADATA_ONLY
            return await handler(request)

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._credentials.ssl_context),
            headers={"User-Agent": "strongroom", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),  # watches set their own
            middlewares=(authorize,),
            response_class=_Response,
        )

    # In our loop

    def _take_in(self) -> None:
        while self._events:
            event = self._events[0]
            try:
                self._deliver(event)
            except Exception as error:
                name = event.body.get("metadata", {}).get("name")
                _log.error("an event of %s %r cannot be used: %s", event.kind.value, name, type(error).__name__)
            self._events.popleft()


class _Response(aiohttp.ClientResponse):
    """An empty metadata list has `items: null`, which Kopf cannot read."""

    async def json(self, **options: Any) -> Any:
        """The body, with an empty list where the API server says null."""
        answer = await super().json(**options)
        if isinstance(answer, dict) and "items" in answer and answer["items"] is None:
            answer["items"] = []
        return answer


class _NoDiffs(kopf.DiffBaseStorage):
    """Kopf digests every object of every event to tell what changed; nothing here asks it to."""

    def build(self, **_: Any) -> Any:
        """Nothing to compare."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was kept."""

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # Otherwise Kopf kills the whole process ten minutes after it has ended.
    settings.process.ultimate_exiting_timeout = None
    settings.networking.request_timeout = _REQUEST_SECONDS
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.chunk_size = PAGE_SIZE
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + 30
    settings.watching.connect_timeout = 5
    settings.watching.label_selectors["", "v1", "secrets"] = MANAGED_SELECTOR
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.queueing.idle_timeout = 0.1
    return settings
