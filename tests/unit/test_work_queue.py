# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.controllers import workqueue
from strongroom.controllers.workqueue import Lane, WorkQueue
from strongroom.model.ids import ObjectKey
from tests.unit.fakes import run_in_virtual_time, settle


def key(name: str, namespace: str = "shop") -> ObjectKey:
    return ObjectKey(namespace, name)


A, B, C = key("a"), key("b"), key("c")


class Bench:
    """A queue whose workers wait at a gate that the test holds. Two workers on one key fail the test."""

    def __init__(self, *, workers: int = 1, held: bool = False, group_limit: int | None = None) -> None:
        self.started: list[ObjectKey] = []
        self.running: dict[ObjectKey, asyncio.Event] = {}
        self.depths: list[int] = []
        self.held = held
        self.fail: dict[ObjectKey, BaseException] = {}
        self.queue = WorkQueue(
            self._process,
            workers=workers,
            on_depth=self.depths.append,
            group_of=lambda key: key.name.partition("/")[0] if group_limit else "",
            group_limit=group_limit,
        )

    async def _process(self, key: ObjectKey) -> None:
        assert key not in self.running, "two workers on one object"
        self.started.append(key)
        self.running[key] = asyncio.Event()
        try:
            if self.held:
                await self.running[key].wait()
            if key in self.fail:
                raise self.fail.pop(key)
        finally:
            del self.running[key]

    def finish(self, key: ObjectKey) -> None:
        self.running[key].set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.queue.run())
        try:
            await settle()
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_an_object_waits_once_however_often_it_is_added() -> None:
    bench = Bench()
    for _ in range(5):
        bench.queue.add(A)
    async with bench.working():
        assert bench.started == [A]


async def test_an_object_has_one_worker_and_is_looked_at_once_more_when_it_changed_meanwhile() -> None:
    bench = Bench(workers=4, held=True)
    async with bench.working():
        bench.queue.add(A)
        await settle()
        for _ in range(3):
            bench.queue.add(A)
        await settle()
        assert bench.started == [A]
        bench.finish(A)
        await settle()
        assert bench.started == [A, A]
        bench.finish(A)
        await settle()
        assert bench.started == [A, A]


async def test_as_many_objects_are_worked_on_as_there_are_workers() -> None:
    bench = Bench(workers=2, held=True)
    for item in (A, B, C):
        bench.queue.add(item)
    async with bench.working():
        assert bench.running.keys() == {A, B}
        bench.finish(B)
        await settle()
        assert bench.running.keys() == {A, C}


async def test_live_changes_go_before_the_backlog() -> None:
    bench = Bench()
    bench.queue.add(A, Lane.BACKLOG)
    bench.queue.add(B, Lane.BACKLOG)
    bench.queue.add(C, Lane.LIVE)
    async with bench.working():
        assert bench.started == [C, A, B]


async def test_an_object_of_the_backlog_moves_ahead_when_it_changes_and_is_not_done_twice() -> None:
    bench = Bench()
    for item in (A, B, C):
        bench.queue.add(item, Lane.BACKLOG)
    bench.queue.add(C, Lane.LIVE)
    bench.queue.add(C, Lane.BACKLOG)
    async with bench.working():
        assert bench.started == [C, A, B]


async def test_what_changed_live_while_worked_on_stays_live() -> None:
    bench = Bench(held=True)
    bench.queue.add(A)
    async with bench.working():
        bench.queue.add(B, Lane.BACKLOG)
        bench.queue.add(A, Lane.LIVE)
        bench.queue.add(A, Lane.BACKLOG)
        bench.finish(A)
        await settle()
        assert bench.started == [A, A]


@pytest.mark.parametrize("lane", Lane)
async def test_namespaces_take_turns_and_keep_their_order(lane: Lane) -> None:
    bench = Bench()
    for number in range(4):
        bench.queue.add(key(str(number), "large"), lane)
    bench.queue.add(key("0", "small"), lane)
    bench.queue.add(key("0", "tiny"), lane)
    bench.queue.add(key("1", "small"), lane)
    async with bench.working():
        assert [str(item) for item in bench.started] == [
            "large/0", "small/0", "tiny/0", "large/1", "small/1", "large/2", "large/3",
        ]  # fmt: skip


def test_an_object_that_raises_is_tried_again_and_its_error_text_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        bench = Bench()
        bench.fail[A] = ValueError("canary-plaintext")
        bench.queue.add(A)
        bench.queue.add(B)
        async with bench.working():
            await asyncio.sleep(1.0)
        assert bench.started == [A, B, A]

    with caplog.at_level(logging.DEBUG):
        run_in_virtual_time(main)
    (record,) = (record for record in caplog.records if record.name == workqueue.__name__)
    shown = logging.Formatter().format(record)
    assert "ValueError" in shown
    assert "_process" in shown
    assert "canary" not in shown


async def test_a_cancellation_that_was_not_meant_for_the_worker_costs_neither_worker_nor_object() -> None:
    """Awaiting a task that someone else cancelled raises CancelledError too."""
    bench = Bench()
    bench.fail[A] = asyncio.CancelledError()
    bench.queue.add(A)
    bench.queue.add(B)
    async with bench.working():
        assert sorted(bench.started) == [A, A, B]
        bench.queue.add(C)
        await settle()
        assert bench.started[-1] == C


async def test_what_was_cancelled_with_the_queue_is_first_when_it_runs_again() -> None:
    bench = Bench(held=True)
    bench.queue.add(A)
    async with bench.working():
        assert A in bench.running
    bench.held = False
    bench.queue.add(B, Lane.BACKLOG)
    async with bench.working():
        assert bench.started == [A, A, B]


def test_pauses_grow_to_a_cap_with_jitter_and_start_anew_after_success(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return high

    monkeypatch.setattr(workqueue.random, "uniform", uniform)

    async def main() -> None:
        queue = Bench().queue
        assert [queue.retry(A) for _ in range(30)] == list(range(1, 31))
        queue.forget(A)
        assert queue.retry(A) == 1
        assert queue.retry(B) == 1

    run_in_virtual_time(main)
    highest = [high for _, high in ranges]
    assert highest[:9] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2]
    assert set(highest[9:30]) == {60.0}
    assert highest[30:] == [0.2, 0.2]
    assert all(low == high / 4 for low, high in ranges)


def test_pauses_differ() -> None:
    """Objects that failed together do not come back together."""

    async def main() -> None:
        queue = Bench().queue
        for number in range(50):
            queue.retry(key(str(number)))
        assert len({round(timer.when(), 6) for timer in queue._timers.values()}) > 40

    run_in_virtual_time(main)


def test_a_retry_comes_no_earlier_than_it_was_told_to() -> None:
    async def main() -> None:
        bench = Bench()
        async with bench.working():
            bench.queue.retry(A, at_least=30.0)
            await asyncio.sleep(29.9)
            assert bench.started == []
            await asyncio.sleep(0.2)
            assert bench.started == [A]

    run_in_virtual_time(main)


def test_a_later_timer_replaces_the_earlier_and_a_change_replaces_both() -> None:
    async def main() -> None:
        bench = Bench()
        async with bench.working():
            bench.queue.add_after(A, 5.0)
            bench.queue.add_after(A, 50.0)
            await asyncio.sleep(10.0)
            assert bench.started == []
            bench.queue.add(A)
            await asyncio.sleep(100.0)
            assert bench.started == [A]

    run_in_virtual_time(main)


def test_a_forgotten_object_is_not_tried_again() -> None:
    async def main() -> None:
        bench = Bench()
        async with bench.working():
            bench.queue.retry(A)
            bench.queue.forget(A)
            await asyncio.sleep(1000.0)
            assert bench.started == []

    run_in_virtual_time(main)


async def test_the_depth_is_told_at_every_change() -> None:
    bench = Bench()
    for item in (A, B, B):
        bench.queue.add(item)
    async with bench.working():
        assert bench.depths == [1, 2, 1, 0]


async def test_ending_the_queue_ends_what_is_being_worked_on() -> None:
    bench = Bench(held=True)
    bench.queue.add(A)
    async with bench.working():
        assert A in bench.running
    assert bench.running == {}


keys = st.sampled_from([key("a"), key("b"), key("a", "web")])
steps = st.one_of(
    st.tuples(st.just("add"), keys, st.sampled_from(Lane)),
    st.tuples(st.just("finish"), keys),
    st.tuples(st.just("fail"), keys),
    st.tuples(st.just("retry"), keys),
    st.tuples(st.just("forget"), keys),
    st.tuples(st.just("later"), keys, st.floats(0.0, 5.0)),
    st.tuples(st.just("run"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 3), st.lists(steps, max_size=40))
def test_no_order_of_events_loses_an_object_or_gives_it_two_workers(workers: int, events: list[tuple]) -> None:  # type: ignore[type-arg]
    logging.getLogger("strongroom.controllers.workqueue").setLevel(logging.CRITICAL)

    async def main() -> None:
        bench = Bench(workers=workers, held=True)
        due: dict[ObjectKey, int] = {}  # how many starts there had been when the object was last added
        async with bench.working():
            for event in events:
                match event:
                    case ("add", item, lane):
                        due[item] = len(bench.started)
                        bench.queue.add(item, lane)
                    case ("finish", item) if item in bench.running:
                        bench.finish(item)
                    case ("fail", item) if item in bench.running:
                        bench.fail[item] = RuntimeError()
                        bench.finish(item)
                    case ("retry", item):
                        bench.queue.retry(item)
                    case ("forget", item):
                        bench.queue.forget(item)
                    case ("later", item, seconds):
                        bench.queue.add_after(item, seconds)
                    case ("run", turns):
                        await settle(turns)
                    case ("wait", seconds):
                        await asyncio.sleep(seconds)
            bench.held = False
            for item in list(bench.running):
                bench.finish(item)
            await asyncio.sleep(200.0)
            for item, before in due.items():
                assert item in bench.started[before:], f"{item} was added and never looked at"
            assert bench.running == {}
            assert not bench.queue._waiting
            assert not bench.queue._timers

    run_in_virtual_time(main)


def test_what_was_cancelled_in_a_pause_is_still_to_be_done() -> None:
    async def test() -> None:
        bench = Bench(workers=2)
        bench.queue.pause(30)
        for each in (A, B, C):
            bench.queue.add(each)
        async with bench.working():
            assert bench.started == [], "the pause is on"
        async with bench.working():
            await asyncio.sleep(90)
        assert sorted(bench.started) == [A, B, C]

    run_in_virtual_time(test)


# Groups


async def test_group_that_hangs_leaves_workers_to_the_others() -> None:
    bench = Bench(workers=4, held=True, group_limit=3)
    ill = [key(f"ill/{number}") for number in range(10)]
    for each in ill:
        bench.queue.add(each)
    async with bench.working():
        assert bench.started == ill[:3]
        for number in range(5):
            well = key(f"well/{number}")
            bench.queue.add(well)
            await settle()
            bench.finish(well)
            await settle()
        assert bench.started[3:] == [key(f"well/{number}") for number in range(5)]
        for each in ill:  # it answers again: none is forgotten, whoever passed it over
            bench.finish(each)
            await settle()
        assert bench.started[8:] == ill[3:]
        assert bench.running == {}


async def test_group_waits_in_its_own_order_live_before_backlog() -> None:
    bench = Bench(workers=2, held=True, group_limit=1)
    first, old, new = key("ill/first"), key("ill/old"), key("ill/new")
    async with bench.working():
        for each, lane in ((first, Lane.LIVE), (old, Lane.BACKLOG), (new, Lane.LIVE)):
            bench.queue.add(each, lane)
            await settle()
        for each in (first, new, old):
            assert list(bench.running) == [each]
            bench.finish(each)
            await settle()


async def test_groups_take_turns() -> None:
    bench = Bench(workers=1, group_limit=1)
    keys = [key(f"{group}/{number}") for group in ("a", "b") for number in range(4)]
    for each in keys:
        bench.queue.add(each)
    async with bench.working():
        await settle()
    assert [each.name[0] for each in bench.started] == list("abababab")


@settings(deadline=None)
@given(
    groups=st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    workers=st.integers(1, 5),
    group_limit=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
def test_every_key_of_every_group_is_processed_and_no_group_has_more_than_its_workers(
    groups: list[str], workers: int, group_limit: int, order: random.Random
) -> None:
    async def run() -> None:
        bench = Bench(workers=workers, held=True, group_limit=group_limit)
        keys = [key(f"{group}/{number}") for number, group in enumerate(groups)]
        for each in keys:
            bench.queue.add(each, order.choice(list(Lane)))
        async with bench.working():
            while bench.running:
                counts = Counter(each.name[0] for each in bench.running)
                assert max(counts.values()) <= group_limit
                left = Counter(each.name[0] for each in set(keys) - set(bench.started))
                idle = workers - len(bench.running)
                assert not idle or all(counts[group] == group_limit for group in left), (
                    "idle beside work that may go on"
                )
                for each in order.sample(sorted(bench.running), order.randint(1, len(bench.running))):
                    bench.finish(each)
                await settle()
        assert sorted(bench.started) == sorted(keys)

    run_in_virtual_time(run)
