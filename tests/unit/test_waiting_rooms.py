# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from strongroom.controllers import waiting
from strongroom.controllers.waiting import STALLED_AFTER_SECONDS, Grant, PermissionRoom, WaitingRoom
from strongroom.errors import AccessDenied, Reason, StrongroomError
from strongroom.model.ids import ObjectKey
from tests.unit.fakes import loop_time, run_in_virtual_time, settle

A, B, C = ObjectKey("shop", "a"), ObjectKey("shop", "b"), ObjectKey("web", "c")
SHOP, WEB = Grant("shop", "default", "prod"), Grant("web", "default", "prod")
DENIED = AccessDenied(who="system:serviceaccount:shop:default", may_not="use keys 'prod'")


def test_a_change_releases_exactly_those_that_waited_for_it() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    room.enter(A, "prod")
    room.enter(B, "prod")
    room.enter(C, "staging")
    assert room.waiting_for("prod") == {A, B}
    assert room.release("prod") == {A, B}
    assert room.release("prod") == set()
    assert room.subject_of(A) is None
    assert room.subject_of(C) == "staging"


def test_an_object_waits_for_one_thing_at_a_time() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    room.enter(A, "prod")
    room.enter(A, "staging")
    assert room.release("prod") == set()
    assert room.release("staging") == {A}


def test_who_left_is_not_released_and_leaving_twice_does_no_harm() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    room.enter(A, "prod")
    room.enter(B, "prod")
    for _ in range(2):
        room.leave(A)
    assert room.release("prod") == {B}


def test_what_is_told_is_a_copy() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    room.enter(A, "prod")
    room.waiting_for("prod").clear()
    assert room.waiting_for("prod") == {A}


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=loop_time))


class Desk:
    """A PermissionRoom with a fake review. Every review is noted with its time."""

    def __init__(self) -> None:
        self.start = loop_time()
        self.granted: set[Grant] = set()
        self.reviews: list[tuple[float, Grant]] = []
        self.released: list[set[ObjectKey]] = []
        self.reminded: list[tuple[float, set[ObjectKey]]] = []
        self.failure: Exception | None = None
        self.room = PermissionRoom(
            review=self._review,
            release=self.released.append,
            remind=lambda keys: self.reminded.append((loop_time() - self.start, keys)),
        )

    async def _review(self, grant: Grant) -> bool:
        self.reviews.append((loop_time() - self.start, grant))
        if self.failure:
            raise self.failure
        return grant in self.granted


def in_virtual_time(test: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        desk = Desk()
        await test(desk)
        await desk.room.close()

    run_in_virtual_time(main)


def test_one_review_serves_all_objects_of_a_grant_and_a_yes_releases_them() -> None:
    async def test(desk: Desk) -> None:
        for number in range(100):
            desk.room.enter(ObjectKey("shop", str(number)), SHOP, DENIED)
        desk.room.enter(C, WEB, DENIED)
        await asyncio.sleep(0.5)
        assert desk.reviews == []
        desk.granted.add(SHOP)
        await asyncio.sleep(1.0)
        assert [grant for _, grant in desk.reviews] == [SHOP, WEB]
        (released,) = (keys for keys in desk.released if keys)
        assert len(released) == 100
        assert desk.room.standing(C, WEB) is DENIED

    in_virtual_time(test)


def test_reviews_come_after_1_s_then_less_often_but_at_least_every_30_s() -> None:
    async def test(desk: Desk) -> None:
        desk.room.enter(A, SHOP, DENIED)
        await asyncio.sleep(150.0)
        times = [round(at) for at, _ in desk.reviews]
        assert times == [1, 3, 7, 15, 31, 61, 91, 121]

    in_virtual_time(test)


def test_after_a_minute_everyone_who_waits_is_reminded_once() -> None:
    async def test(desk: Desk) -> None:
        desk.room.enter(A, SHOP, DENIED)
        desk.room.enter(B, SHOP, DENIED)
        await asyncio.sleep(STALLED_AFTER_SECONDS - 1)
        assert not desk.room.stalled(SHOP)
        assert desk.reminded == []
        await asyncio.sleep(600.0)
        assert desk.room.stalled(SHOP)
        ((at, keys),) = desk.reminded
        assert STALLED_AFTER_SECONDS <= at <= STALLED_AFTER_SECONDS + 30
        assert keys == {A, B}

    in_virtual_time(test)


def test_a_grant_after_hours_still_releases() -> None:
    async def test(desk: Desk) -> None:
        desk.room.enter(A, SHOP, DENIED)
        await asyncio.sleep(3 * 3600.0)
        desk.granted.add(SHOP)
        await asyncio.sleep(31.0)
        assert desk.released == [{A}]
        assert desk.room.standing(A, SHOP) is None
        assert not desk.room.stalled(SHOP)

    in_virtual_time(test)


def test_a_review_that_fails_is_no_answer() -> None:
    async def test(desk: Desk) -> None:
        desk.failure = StrongroomError(Reason.UNAVAILABLE, "the API server answered nothing")
        desk.room.enter(A, SHOP, DENIED)
        await asyncio.sleep(100.0)
        assert desk.released == []
        assert desk.reminded == []
        desk.failure = None
        desk.granted.add(SHOP)
        await asyncio.sleep(31.0)
        assert desk.released == [{A}]

    in_virtual_time(test)


def test_an_error_nobody_foresaw_forgets_nobody_and_its_text_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test(desk: Desk) -> None:
        desk.failure = ValueError("canary")
        desk.room.enter(A, SHOP, DENIED)
        await asyncio.sleep(100.0)
        assert desk.released == []
        assert desk.room.standing(A, SHOP) is DENIED
        desk.failure = None
        desk.granted.add(SHOP)
        await asyncio.sleep(31.0)
        assert desk.released == [{A}]

    in_virtual_time(test)
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text


def test_when_nobody_waits_any_more_the_reviews_end() -> None:
    async def test(desk: Desk) -> None:
        desk.room.enter(A, SHOP, DENIED)
        await asyncio.sleep(1.5)
        desk.room.leave(A)
        await asyncio.sleep(1000.0)
        assert len(desk.reviews) <= 2
        assert not any(desk.released)
        desk.room.enter(A, SHOP, DENIED)
        await asyncio.sleep(1.5)
        assert len(desk.reviews) <= 3

    in_virtual_time(test)


def test_a_denial_stands_only_for_the_grant_that_the_object_waits_for() -> None:
    async def test(desk: Desk) -> None:
        desk.room.enter(A, SHOP, DENIED)
        assert desk.room.standing(A, SHOP) is DENIED
        assert desk.room.standing(B, SHOP) is None
        assert desk.room.standing(A, Grant("shop", "other", "prod")) is None
        desk.room.leave(A)
        assert desk.room.standing(A, SHOP) is None

    in_virtual_time(test)


def test_closing_ends_the_reviews() -> None:
    async def main() -> None:
        desk = Desk()
        desk.room.enter(A, SHOP, DENIED)
        await settle()
        await desk.room.close()
        await asyncio.sleep(100.0)
        assert desk.reviews == []

    run_in_virtual_time(main)
