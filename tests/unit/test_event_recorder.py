# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from strongroom import events
from strongroom.events import EventRecorder, EventType
from strongroom.kube.client import ApiError
from strongroom.model.principal import ObjectReference
from tests.unit.fakes import FakeKube, loop_time, run_in_virtual_time


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=loop_time))


def about(name: str = "db", namespace: str = "shop") -> ObjectReference:
    api_version = "kms.strongroom.dev/v1alpha1"
    return ObjectReference(api_version, "EncryptedSecret", namespace, name, f"uid-of-{name}", 1, "7")


class Bench:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.fates: list[str] = []
        self.recorder = EventRecorder(self.kube, "operator-0", on_fate=self.fates.append)  # type: ignore[arg-type]

    def record(self, regarding: ObjectReference | None = None, *, note: str = "Wrote Secret db") -> None:
        self.recorder.record(regarding or about(), EventType.NORMAL, reason="Decrypted", action="Decrypt", note=note)

    @property
    def created(self) -> list[dict[str, Any]]:
        return self.kube.bodies("create")


def running(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Run a test beside the recorder's task, in virtual time."""

    async def main() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.recorder.run())
        await test(bench)
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run_in_virtual_time(main)


def test_an_event_says_what_happened_to_what() -> None:
    async def test(bench: Bench) -> None:
        bench.record()
        await asyncio.sleep(1)
        ((_, path, body),) = bench.kube.calls
        assert path == "/apis/events.k8s.io/v1/namespaces/shop/events"
        assert body["metadata"]["namespace"] == "shop"
        assert body["regarding"] == {
            "apiVersion": "kms.strongroom.dev/v1alpha1",
            "kind": "EncryptedSecret",
            "namespace": "shop",
            "name": "db",
            "uid": "uid-of-db",
            "resourceVersion": "7",
        }
        assert (body["type"], body["reason"], body["action"], body["note"]) == (
            "Normal", "Decrypted", "Decrypt", "Wrote Secret db",
        )  # fmt: skip
        assert (body["reportingController"], body["reportingInstance"]) == ("strongroom.dev/operator", "operator-0")
        assert "series" not in body
        assert bench.fates == ["written"]

    running(test)


def test_an_event_of_a_cluster_scoped_object_goes_to_default() -> None:
    async def test(bench: Bench) -> None:
        bench.record(about("prod", namespace=""))
        await asyncio.sleep(1)
        ((_, path, body),) = bench.kube.calls
        assert path == "/apis/events.k8s.io/v1/namespaces/default/events"
        assert (body["metadata"]["namespace"], body["regarding"]["namespace"]) == ("default", "")

    running(test)


def test_the_same_again_is_one_series() -> None:
    async def test(bench: Bench) -> None:
        bench.record()
        await asyncio.sleep(1)
        for _ in range(3):
            bench.record()
        await asyncio.sleep(1)
        (created,) = bench.created
        (patched,) = bench.kube.bodies("patch")
        assert patched["series"]["count"] == 4
        assert bench.kube.calls[-1][1].endswith("/events/" + created["metadata"]["name"])

    running(test)


def test_what_repeats_before_it_is_sent_starts_as_a_series() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(5):
            bench.record()
        await asyncio.sleep(1)
        (created,) = bench.created
        assert created["series"]["count"] == 5
        assert bench.kube.bodies("patch") == []

    running(test)


def test_ten_minutes_later_it_is_a_new_event() -> None:
    async def test(bench: Bench) -> None:
        bench.record()
        await asyncio.sleep(601.0)
        bench.record()
        await asyncio.sleep(1)
        assert len(bench.created) == 2
        assert len({body["metadata"]["name"] for body in bench.created}) == 2

    running(test)


def test_another_note_object_or_type_is_another_event() -> None:
    async def test(bench: Bench) -> None:
        bench.record()
        bench.record(note="Repaired Secret db")
        bench.record(about("cache"))
        bench.recorder.record(about(), EventType.WARNING, reason="Decrypted", action="Decrypt", note="Wrote Secret db")
        await asyncio.sleep(1)
        assert len(bench.created) == 4

    running(test)


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        pytest.param("x" * 1024, "x" * 1024, id="fits"),
        pytest.param("x" * 1025, "x" * 1024, id="one-byte-more"),
        pytest.param("é" * 513, "é" * 512, id="two-byte-characters"),
        pytest.param("x" + "é" * 512, "x" + "é" * 511, id="cut-within-a-character"),
        pytest.param("xy" + "\U0001f511" * 256, "xy" + "\U0001f511" * 255, id="cut-within-four-bytes"),
    ],
)
def test_a_note_is_cut_between_characters_at_1024_bytes(note: str, kept: str) -> None:
    async def test(bench: Bench) -> None:
        bench.record(note=note)
        await asyncio.sleep(1)
        assert bench.created[0]["note"] == kept

    running(test)


def test_the_name_of_an_event_fits_however_long_the_objects_is() -> None:
    async def test(bench: Bench) -> None:
        bench.record(about("n" * 253))
        await asyncio.sleep(1)
        assert len(bench.created[0]["metadata"]["name"]) <= 253

    running(test)


def test_fifty_go_out_at_once_then_twenty_five_a_second() -> None:
    async def test(bench: Bench) -> None:
        for number in range(200):
            bench.record(about(str(number)))
        await asyncio.sleep(0.001)
        assert len(bench.created) == 50
        await asyncio.sleep(2.0)
        assert 99 <= len(bench.created) <= 101
        await asyncio.sleep(4.0)
        assert len(bench.created) == 200
        await asyncio.sleep(60.0)  # what was saved up is no more than the burst
        for number in range(100):
            bench.record(about(f"again-{number}"))
        await asyncio.sleep(0.001)
        assert len(bench.created) == 250

    running(test)


def test_when_too_many_wait_new_ones_are_dropped_and_counted() -> None:
    async def main() -> None:
        bench = Bench()  # nobody sends
        for number in range(10_001):
            bench.record(about(str(number)))
        bench.record(about("0"))  # one more of a series takes no room
        assert bench.fates == ["dropped"]

    run_in_virtual_time(main)


@pytest.mark.parametrize("method", ["create", "patch"])
def test_an_event_that_cannot_be_written_is_counted_and_the_next_one_goes_out(method: str) -> None:
    async def test(bench: Bench) -> None:
        if method == "patch":
            bench.record()
            await asyncio.sleep(1)
        bench.kube.answer(method, ApiError(404, "NotFound"))
        bench.record()
        await asyncio.sleep(1)
        bench.record()
        await asyncio.sleep(1)
        assert bench.fates[-2:] == ["failed", "written"]
        assert bench.kube.calls[-1][0] == "create"

    running(test)


def test_the_same_while_the_first_is_under_way_becomes_a_series_of_it() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.gate = asyncio.Event()
        bench.record()
        await asyncio.sleep(1)
        for _ in range(3):
            bench.record()
        bench.kube.gate.set()
        await asyncio.sleep(1)
        (created,) = bench.created
        (patched,) = bench.kube.bodies("patch")
        assert "series" not in created
        assert patched["series"]["count"] == 4
        assert bench.kube.calls[-1][1].endswith("/events/" + created["metadata"]["name"])

    running(test)


def test_the_same_while_the_first_fails_is_an_event_of_its_own() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.gate = asyncio.Event()
        bench.kube.answer("create", ApiError(500, "InternalError"))
        bench.record()
        await asyncio.sleep(1)
        bench.record()
        bench.kube.gate.set()
        await asyncio.sleep(1)
        assert bench.fates == ["failed", "written"]
        assert len(bench.created) == 2
        assert bench.created[-1]["series"]["count"] == 2

    running(test)
