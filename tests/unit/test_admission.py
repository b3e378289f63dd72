# SPDX-License-Identifier: Apache-2.0
"""Sessions are shared out fairly, none is lost or kept idle, and nobody waits for ever."""

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strongroom.hsm.admission import MAX_WAITING, Admission, QueueFull
from strongroom.hsm.values import Share

A, B = Share.RECONCILE, Share.API
SHARES = st.sampled_from(Share)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiting(admission: Admission, share: Share, *, alone: bool = False) -> asyncio.Task[None]:
    acquire = admission.acquire_all(share) if alone else admission.acquire(share)
    task = asyncio.get_running_loop().create_task(acquire)
    await settle()
    return task


async def test_one_share_has_every_session_while_the_other_asks_for_none() -> None:
    admission = Admission(4)
    for _ in range(4):
        await asyncio.wait_for(admission.acquire(A), 1)
    assert admission.held == {A: 4, B: 0}


async def test_share_that_comes_later_gets_the_next_sessions_until_both_hold_as_many() -> None:
    admission = Admission(4)
    for _ in range(4):
        await admission.acquire(A)
    more = [await waiting(admission, A) for _ in range(4)]
    late = [await waiting(admission, B) for _ in range(4)]
    for _ in range(2):
        admission.release(A)
    await settle()
    assert admission.held == {A: 2, B: 2}
    assert [task.done() for task in late] == [True, True, False, False]
    assert not any(task.done() for task in more)
    admission.release(B)  # three are held: whoever gives one back gets it back
    await settle()
    assert admission.held == {A: 2, B: 2}
    for task in more + late:
        task.cancel()
    await asyncio.gather(*more, *late, return_exceptions=True)


async def test_with_one_session_the_shares_take_turns() -> None:
    admission = Admission(1)
    await admission.acquire(A)
    order: list[Share] = []

    async def use(share: Share) -> None:
        await admission.acquire(share)
        order.append(share)
        await asyncio.sleep(0)
        admission.release(share)

    backlog = [asyncio.create_task(use(A)) for _ in range(20)]
    await settle()
    calls = [asyncio.create_task(use(B)) for _ in range(3)]
    await settle()
    admission.release(A)
    await asyncio.gather(*backlog, *calls)
    assert len(order) == 23
    first = order.index(B)
    assert first <= 20
    assert admission.held == {A: 0, B: 0}


async def test_within_a_share_the_first_come_is_the_first_served() -> None:
    admission = Admission(1)
    await admission.acquire(A)
    tasks = [await waiting(admission, A) for _ in range(5)]
    for count in range(1, 6):
        admission.release(A)
        await settle()
        assert [task.done() for task in tasks] == [True] * count + [False] * (5 - count)


async def test_each_share_has_a_line_of_its_own_and_a_full_one_refuses() -> None:
    admission = Admission(1)
    await admission.acquire(A)
    line = [asyncio.create_task(admission.acquire(A)) for _ in range(MAX_WAITING)]
    await settle()
    for acquire in (admission.acquire, admission.acquire_all):
        with pytest.raises(QueueFull) as caught:
            await acquire(A)
        assert caught.value.waiting == MAX_WAITING
    other = await waiting(admission, B)
    assert admission.waiting == {A: MAX_WAITING, B: 1}
    for task in (*line, other):
        task.cancel()
    await asyncio.gather(*line, other, return_exceptions=True)
    assert admission.waiting == {A: 0, B: 0}
    admission.release(A)
    await asyncio.wait_for(admission.acquire_all(B), 1)


async def test_session_given_to_a_caller_that_was_cancelled_meanwhile_goes_to_the_next() -> None:
    admission = Admission(1)
    await admission.acquire(A)
    first, second = await waiting(admission, A), await waiting(admission, A)
    admission.release(A)  # first is admitted, and has not run yet
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()
    assert admission.held[A] == 1


async def test_caller_cancelled_in_the_same_moment_as_a_session_comes_free_is_passed_over() -> None:
    admission = Admission(1)
    await admission.acquire(A)
    first, second = await waiting(admission, A), await waiting(admission, B)
    first.cancel()  # and has not run yet
    admission.release(A)
    await settle()
    assert first.cancelled()
    assert second.done()
    assert admission.held == {A: 0, B: 1}


async def test_who_wants_all_gets_them_once_nobody_holds_any_and_nobody_joins() -> None:
    admission = Admission(3)
    for share in (A, B):
        await admission.acquire(share)
    alone = await waiting(admission, A, alone=True)
    admission.release(A)
    await settle()
    later = await waiting(admission, A)
    assert not alone.done()
    admission.release(B)
    await settle()
    assert alone.done()
    other = await waiting(admission, B)
    admission.resize(8)
    await settle()
    assert not later.done()
    assert not other.done()
    admission.release(A)
    await settle()
    assert later.done()
    assert other.done()


async def test_two_that_want_all_do_not_wait_for_each_other() -> None:
    admission = Admission(16)
    for share in (A, B):
        for _ in range(8):
            await admission.acquire(share)
    first, second = await waiting(admission, A, alone=True), await waiting(admission, B, alone=True)
    for share in (A, B):
        for _ in range(8):
            admission.release(share)
    await settle()
    assert first.done()
    assert not second.done()
    admission.release(A)
    await settle()
    assert second.done()


async def test_who_wants_all_is_not_put_off_for_ever_by_the_other_share() -> None:
    admission = Admission(4)
    await admission.acquire(A)
    served = 0

    async def stream() -> None:
        nonlocal served
        while True:
            await admission.acquire(B)
            await asyncio.sleep(0)
            served += 1
            admission.release(B)

    streams = [asyncio.create_task(stream()) for _ in range(8)]
    await settle()
    alone = asyncio.create_task(admission.acquire_all(A))
    await settle()
    admission.release(A)
    await asyncio.wait_for(alone, 5)
    before = served
    await settle()
    assert served == before
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_cancelling_who_wants_all_lets_the_others_go_on() -> None:
    admission = Admission(2)
    await admission.acquire(A)
    alone = await waiting(admission, A, alone=True)
    behind = await waiting(admission, A)
    assert not behind.done()
    alone.cancel()
    await settle()
    assert behind.done()


async def test_fewer_sessions_are_taken_back_as_they_are_released() -> None:
    admission = Admission(3)
    for _ in range(3):
        await admission.acquire(A)
    admission.resize(1)
    task = await waiting(admission, B)
    for _ in range(2):
        admission.release(A)
        await settle()
        assert not task.done()
    admission.release(A)
    await settle()
    assert task.done()


@pytest.mark.parametrize("permits", [0, -1])
async def test_there_is_always_at_least_one_session(permits: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Admission(1).resize(permits)


async def test_nothing_is_released_that_is_not_held() -> None:
    admission = Admission(1)
    await admission.acquire(A)
    with pytest.raises(ValueError, match="nothing is held"):
        admission.release(B)


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of calls, cancellations and steps of the loop against what the docstring promises."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.admission = Admission(2)
        self.asked: dict[Share, deque[tuple[asyncio.Task[None], bool]]] = {share: deque() for share in Share}
        self.holding: list[tuple[Share, bool]] = []

    def _run(self, call: Any) -> None:
        async def step() -> None:
            call()

        self.loop.run_until_complete(step())

    def _settle(self) -> None:
        self.loop.run_until_complete(settle())
        for share, line in self.asked.items():
            for task, alone in list(line):
                if task.done():
                    line.remove((task, alone))
                    if not task.cancelled():
                        task.result()
                        self.holding.append((share, alone))

    @rule(share=SHARES, alone=st.booleans(), at_once=st.booleans())
    def ask(self, share: Share, alone: bool, at_once: bool) -> None:
        acquire = self.admission.acquire_all(share) if alone else self.admission.acquire(share)
        self.asked[share].append((self.loop.create_task(acquire), alone))
        if at_once:
            self._settle()

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), at_once=st.booleans())
    def release(self, data: st.DataObject, at_once: bool) -> None:
        share, _ = self.holding.pop(data.draw(st.integers(0, len(self.holding) - 1)))
        self._run(lambda: self.admission.release(share))
        if at_once:
            self._settle()

    @precondition(lambda self: any(self.asked.values()))
    @rule(data=st.data(), at_once=st.booleans())
    def cancel(self, data: st.DataObject, at_once: bool) -> None:
        tasks = [task for line in self.asked.values() for task, _ in line]
        tasks[data.draw(st.integers(0, len(tasks) - 1))].cancel()
        if at_once:
            self._settle()

    @rule(permits=st.integers(1, 5))
    def resize(self, permits: int) -> None:
        self._run(lambda: self.admission.resize(permits))

    @rule()
    def let_everyone_run(self) -> None:
        self._settle()
        held = {share: sum(holder is share for holder, _ in self.holding) for share in Share}
        assert self.admission.held == held, "a permit was lost or made up"
        assert self.admission.waiting == {share: len(line) for share, line in self.asked.items()}
        if any(alone for _, alone in self.holding):
            assert len(self.holding) == 1
            return
        waiting_shares = [share for share, line in self.asked.items() if line]
        if waiting_shares and len(self.holding) < self.admission.permits:
            # Somebody waits beside an idle session: only for one whose turn it is to have all of them.
            turn = min(held[share] for share in waiting_shares)
            heads = [self.asked[share][0][1] for share in waiting_shares if held[share] == turn]
            assert any(heads)
            assert self.holding, "nobody holds any, and yet somebody waits"

    @invariant()
    def never_more_is_held_than_given(self) -> None:
        if any(alone for _, alone in self.holding):
            assert len(self.holding) == 1

    def teardown(self) -> None:
        """Everything released, everyone is served in the end."""
        self._settle()
        while self.holding:
            share, _ = self.holding.pop()
            self._run(lambda share=share: self.admission.release(share))
            self._settle()
        assert not any(self.asked.values())
        assert self.admission.held == dict.fromkeys(Share, 0)
        self.loop.close()


AdmissionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAnyOrderOfCalls = AdmissionMachine.TestCase
