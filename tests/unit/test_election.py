# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from strongroom.controllers.election import DURATION_SECONDS, RENEW_DEADLINE_SECONDS, Elector
from strongroom.kube.client import ApiError
from tests.unit.fakes import FakeKube, loop_time, run_in_virtual_time

COLLECTION = "/apis/coordination.k8s.io/v1/namespaces/strongroom/leases"
PATH = f"{COLLECTION}/strongroom"


class Bench:
    """Candidates before one API server. Time is virtual."""

    def __init__(self) -> None:
        self.kube = FakeKube()

    def candidate(self, identity: str = "me") -> Elector:
        return Elector(self.kube, "strongroom", identity, monotonic=loop_time)  # type: ignore[arg-type]

    def held_by(self, holder: str, *, transitions: int = 3) -> None:
        metadata = {"name": "strongroom", "resourceVersion": "0", "uid": "u"}
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": "2020-01-01T00:00:00.000000Z",
            "renewTime": "2020-01-01T00:00:00.000000Z",  # long ago, or by a clock that is wrong: never looked at
            "leaseTransitions": transitions,
        }
        self.kube.objects[PATH] = {"metadata": metadata, "spec": spec}

    def renewed_by_another(self) -> None:
        lease = self.spec
        self.kube._replace(
            PATH, {**self.kube.objects[PATH], "spec": lease | {"renewTime": "2020-01-01T00:00:01.000000Z"}}
        )

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.kube.objects[PATH]["spec"])


def in_virtual_time(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    run_in_virtual_time(lambda: test(Bench()))


async def seconds(waited_for: Coroutine[Any, Any, None]) -> float:
    start = loop_time()
    await waited_for
    return loop_time() - start


def test_without_a_lease_the_first_to_come_leads_at_once() -> None:
    async def test(bench: Bench) -> None:
        assert await seconds(bench.candidate().acquire()) == 0.0
        assert (bench.spec["holderIdentity"], bench.spec["leaseDurationSeconds"]) == ("me", 15)
        assert bench.spec["leaseTransitions"] == 1

    in_virtual_time(test)


def test_of_two_that_create_at_a_time_one_leads() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.gate = asyncio.Event()
        racing = {asyncio.create_task(bench.candidate(name).acquire(), name=name) for name in ("a", "b")}
        await asyncio.sleep(0.1)
        bench.kube.gate.set()
        done, waiting = await asyncio.wait(racing, timeout=5.0)
        (winner,) = done
        assert bench.spec["holderIdentity"] == winner.get_name()
        assert len(bench.kube.bodies("create")) == 2
        for task in waiting:
            task.cancel()

    in_virtual_time(test)


@pytest.mark.parametrize("holder", ["me", ""], ids=["restarted-in-the-same-pod", "released"])
def test_a_lease_that_is_ours_or_nobodys_needs_no_waiting(holder: str) -> None:
    async def test(bench: Bench) -> None:
        bench.held_by(holder)
        assert await seconds(bench.candidate().acquire()) == 0.0
        assert (bench.spec["holderIdentity"], bench.spec["leaseTransitions"]) == ("me", 3 if holder else 4)
        assert (bench.spec["acquireTime"] == "2020-01-01T00:00:00.000000Z") is bool(holder)

    in_virtual_time(test)


def test_another_holders_lease_is_taken_only_after_it_was_seen_unchanged_for_its_whole_duration() -> None:
    async def test(bench: Bench) -> None:
        bench.held_by("other")
        assert DURATION_SECONDS < await seconds(bench.candidate().acquire()) < DURATION_SECONDS + 3
        assert bench.spec["holderIdentity"] == "me"

    in_virtual_time(test)


def test_a_lease_that_is_renewed_is_never_taken_however_old_it_says_it_is() -> None:
    async def test(bench: Bench) -> None:
        bench.held_by("other")
        acquiring = asyncio.create_task(bench.candidate().acquire())
        for _ in range(20):
            await asyncio.sleep(10.0)
            bench.renewed_by_another()
        assert not acquiring.done()
        await asyncio.sleep(DURATION_SECONDS + 6)  # the last renewal is seen up to one look late, its end another
        assert acquiring.done()

    in_virtual_time(test)


def test_the_duration_is_the_one_the_lease_states() -> None:
    async def test(bench: Bench) -> None:
        bench.held_by("other")
        bench.kube.objects[PATH]["spec"]["leaseDurationSeconds"] = 100
        assert 100 < await seconds(bench.candidate().acquire()) < 103

    in_virtual_time(test)


def test_of_two_that_find_it_abandoned_one_leads() -> None:
    async def test(bench: Bench) -> None:
        bench.held_by("")
        bench.kube.gate = asyncio.Event()
        racing = {asyncio.create_task(bench.candidate(name).acquire(), name=name) for name in ("a", "b")}
        await asyncio.sleep(0.1)
        bench.kube.gate.set()
        done, waiting = await asyncio.wait(racing, timeout=5.0)
        (winner,) = done
        assert bench.spec["holderIdentity"] == winner.get_name()
        for task in waiting:
            task.cancel()

    in_virtual_time(test)


def test_an_api_server_that_is_away_is_waited_for() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.answer("get", *[ApiError(0, "TimeoutError")] * 3)
        assert 6.0 <= await seconds(bench.candidate().acquire()) <= 7.2

    in_virtual_time(test)


def test_who_leads_renews_every_2_s() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        holding = asyncio.create_task(elector.hold())
        await asyncio.sleep(60.5)
        assert not holding.done()
        assert len(bench.kube.bodies("replace")) == 30
        assert bench.spec["leaseTransitions"] == 1
        holding.cancel()

    in_virtual_time(test)


def test_who_cannot_renew_stops_leading_before_another_may_begin() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        bench.kube.answer("replace", *[ApiError(500, "InternalError")] * 99)
        assert await seconds(elector.hold()) == pytest.approx(RENEW_DEADLINE_SECONDS)
        assert RENEW_DEADLINE_SECONDS < DURATION_SECONDS

    in_virtual_time(test)


def test_a_request_that_hangs_does_not_prolong_the_deadline() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        bench.kube.gate = asyncio.Event()
        assert await seconds(elector.hold()) == pytest.approx(RENEW_DEADLINE_SECONDS)

    in_virtual_time(test)


def test_a_renewal_counts_from_before_its_request() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        bench.kube.gate = asyncio.Event()
        holding = asyncio.create_task(seconds(elector.hold()))
        await asyncio.sleep(9.0)
        bench.kube.gate.set()  # the renewal that began after 2 s succeeds after 9
        bench.kube.answer("replace", {"metadata": {}}, *[ApiError(500, "InternalError")] * 99)
        assert await holding == pytest.approx(2.0 + RENEW_DEADLINE_SECONDS)

    in_virtual_time(test)


def test_a_renewal_in_between_prolongs_the_deadline() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        failure = ApiError(409, "Conflict")
        bench.kube.answer("replace", failure, failure, failure)
        holding = asyncio.create_task(elector.hold())
        await asyncio.sleep(60.0)
        assert not holding.done()
        holding.cancel()

    in_virtual_time(test)


def test_who_finds_another_holding_the_lease_stops_leading_at_once() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        bench.held_by("other")
        assert await seconds(elector.hold()) == pytest.approx(2.0)
        assert bench.spec["holderIdentity"] == "other"

    in_virtual_time(test)


def test_who_lost_the_lease_may_lead_again() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        bench.held_by("other")
        await elector.hold()
        await elector.acquire()
        holding = asyncio.create_task(elector.hold())
        await asyncio.sleep(60.0)
        assert not holding.done()
        holding.cancel()

    in_virtual_time(test)


def test_a_released_lease_is_another_ones_at_once() -> None:
    async def test(bench: Bench) -> None:
        elector = bench.candidate()
        await elector.acquire()
        await elector.release()
        assert bench.spec["holderIdentity"] == ""
        assert await seconds(bench.candidate("other").acquire()) == 0.0

    in_virtual_time(test)


@pytest.mark.parametrize("status", [0, 404, 409])
def test_releasing_is_best_effort_and_never_releases_anothers(status: int) -> None:
    async def test(bench: Bench) -> None:
        await bench.candidate().release()  # there is none
        bench.held_by("other")
        await bench.candidate().release()
        assert bench.spec["holderIdentity"] == "other"
        bench.held_by("me")
        bench.kube.answer("replace", ApiError(status, "Whatever"))
        await bench.candidate().release()

    in_virtual_time(test)
