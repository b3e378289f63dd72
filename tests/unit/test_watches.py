# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import logging
import ssl
from typing import Any

import pytest

from strongroom.controllers import watch
from strongroom.controllers.watch import Kind, Watches, WatchEvent
from strongroom.kube.credentials import Credentials

IDENTITY = Credentials("http://127.0.0.1:1", ssl.create_default_context(), "", None)


def body(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": "1"}}


def test_kopf_neither_writes_nor_outlives_its_welcome() -> None:
    settings = watch._settings()
    assert (
        settings.process.ultimate_exiting_timeout is None
    )  # otherwise it kills the process ten minutes after it ended
    assert settings.posting.enabled is False
    assert settings.peering.standalone is True
    assert settings.scanning.disabled is True
    assert settings.watching.label_selectors["", "v1", "secrets"] == "strongroom.dev/managed=true"
    assert settings.watching.server_timeout is not None
    assert settings.watching.client_timeout is not None
    assert settings.watching.client_timeout > settings.watching.server_timeout


@pytest.mark.parametrize("secrets", [True, False])
def test_secrets_are_watched_only_where_that_is_permitted(secrets: bool) -> None:
    watches = Watches(IDENTITY, secrets=secrets, deliver=lambda _: None, on_restart=lambda: None)
    handlers = watches._registry()._watching.get_all_handlers()
    assert {handler.id for handler in handlers} == {kind.value for kind in Kind} - (set() if secrets else {"secrets"})


class Bench:
    """Events are handed over as by Kopf's thread, in this loop."""

    def __init__(self) -> None:
        self.delivered: list[WatchEvent] = []
        self.odd: set[str] = set()
        self.watches = Watches(IDENTITY, secrets=True, deliver=self._deliver, on_restart=lambda: None)
        self.watches._loop = asyncio.get_running_loop()

    def _deliver(self, event: WatchEvent) -> None:
        if event.body["metadata"]["name"] in self.odd:
            raise KeyError("canary")
        self.delivered.append(event)

    @property
    def names(self) -> list[str]:
        return [event.body["metadata"]["name"] for event in self.delivered]


async def test_events_come_in_order_with_what_they_are() -> None:
    bench = Bench()
    for kind, name in ((None, "listed"), ("ADDED", "new"), ("DELETED", "gone")):
        bench.watches._hand_over(Kind.MASTER_KEY, kind, body(name))
    await asyncio.sleep(0)
    assert bench.delivered == [
        WatchEvent(Kind.MASTER_KEY, initial=True, deleted=False, body=body("listed")),
        WatchEvent(Kind.MASTER_KEY, initial=False, deleted=False, body=body("new")),
        WatchEvent(Kind.MASTER_KEY, initial=False, deleted=True, body=body("gone")),
    ]


async def test_one_odd_object_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.odd = {"odd"}
    for name in ("before", "odd", "after"):
        bench.watches._hand_over(Kind.ENCRYPTED_SECRET, "ADDED", body(name))
    await asyncio.sleep(0)
    assert bench.names == ["before", "after"]
    assert "'odd' cannot be used: KeyError" in caplog.text
    assert "canary" not in caplog.text
    bench.watches._hand_over(Kind.ENCRYPTED_SECRET, "ADDED", body("later"))
    await asyncio.sleep(0)
    assert bench.names == ["before", "after", "later"]


async def test_when_kopf_ends_it_is_started_anew_and_the_gap_is_listed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[int] = []
    restarts: list[int] = []
    third = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def deaf() -> None:
        """Ends at the third cancellation only, as Kopf's own tasks may."""
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def root(**options: Any) -> None:
        starts.append(len(restarts))
        if len(starts) == 1:
            raise RuntimeError("canary")
        if len(starts) == 3:
            loop.call_soon_threadsafe(third.set)
            await options["stop_flag"].wait()

    async def spawn_tasks(**options: Any) -> list[asyncio.Task[None]]:
        assert options["settings"].process.ultimate_exiting_timeout is None
        return [asyncio.create_task(root(**options)), asyncio.create_task(deaf())]

    async def served(_: Watches) -> None:
        """At once."""

    monkeypatch.setattr(watch.kopf, "spawn_tasks", spawn_tasks)
    monkeypatch.setattr(watch, "_CANCEL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "_RESTART_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(Watches, "_until_served", served)
    watches = Watches(IDENTITY, secrets=True, deliver=lambda _: None, on_restart=lambda: restarts.append(1))
    assert not watches.alive
    with caplog.at_level(logging.WARNING):
        watches.start()
        async with asyncio.timeout(10):
            await third.wait()
    assert watches.alive
    assert len(restarts) == 2
    await watches.stop()
    assert not watches.alive
    assert "the watches ended (RuntimeError)" in caplog.text
    assert "canary" not in caplog.text
