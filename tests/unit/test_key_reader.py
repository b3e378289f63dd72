# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.kms.keyreader import KeyReader
from strongroom.kube.client import ApiError
from tests.unit.fakes import Clock, FakeKube, master_key_body, settle

PATH = "/apis/kms.strongroom.dev/v1alpha1/customermasterkeys/prod"


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.kube = FakeKube()
        self.reader = KeyReader(self.kube, monotonic=self.clock)  # type: ignore[arg-type]
        self.change("Enabled")

    def change(self, state: str) -> None:
        self.kube.objects[PATH] = master_key_body(state=state)

    async def state(self, max_age: float = 0.1) -> str:
        return (await self.reader.get("prod", max_age=max_age)).state.value


@pytest.mark.parametrize("max_age", [0.1, 1.0])
async def test_a_read_is_shared_no_longer_than_the_caller_allows(max_age: float) -> None:
    bench = Bench()
    assert await bench.state(max_age) == "Enabled"
    bench.change("Disabled")
    bench.clock.advance(max_age * 0.99)
    assert await bench.state(max_age) == "Enabled"
    bench.clock.advance(max_age * 0.02)
    assert await bench.state(max_age) == "Disabled"
    assert len(bench.kube.calls) == 2


async def test_each_caller_has_a_limit_of_its_own() -> None:
    bench = Bench()
    await bench.state(1.0)
    bench.change("Disabled")
    bench.clock.advance(0.5)
    assert await bench.state(1.0) == "Enabled"
    assert await bench.state(0.1) == "Disabled"
    assert await bench.state(1.0) == "Disabled"


async def test_the_age_counts_from_before_the_request() -> None:
    bench = Bench()
    bench.kube.gate = asyncio.Event()
    reading = asyncio.create_task(bench.state(1.0))
    await settle()
    bench.clock.advance(2.0)
    bench.kube.gate.set()
    assert await reading == "Enabled"
    bench.change("Disabled")
    assert await bench.state(1.0) == "Disabled"


async def test_requests_at_a_time_are_one_read() -> None:
    bench = Bench()
    bench.kube.gate = asyncio.Event()
    reading = [asyncio.create_task(bench.state()) for _ in range(50)]
    await settle()
    bench.kube.gate.set()
    assert await asyncio.gather(*reading) == ["Enabled"] * 50
    assert len(bench.kube.calls) == 1


async def test_a_read_that_began_longer_ago_than_the_caller_allows_is_not_joined() -> None:
    bench = Bench()
    bench.kube.gate = asyncio.Event()
    bench.kube.answer("get", master_key_body(state="Enabled"))
    patient = asyncio.create_task(bench.state(1.0))
    await settle()
    bench.change("Disabled")
    bench.clock.advance(0.2)
    strict, also_patient = asyncio.create_task(bench.state(0.1)), asyncio.create_task(bench.state(1.0))
    await settle()
    bench.kube.gate.set()
    assert await asyncio.gather(patient, strict, also_patient) == ["Enabled", "Disabled", "Disabled"]
    assert len(bench.kube.calls) == 2
    assert await bench.state(1.0) == "Disabled"  # the older answer, though it may come last, is not what is kept
    assert len(bench.kube.calls) == 2


async def test_a_change_that_is_known_of_makes_the_next_read_live() -> None:
    bench = Bench()
    await bench.state(60.0)
    bench.change("Disabled")
    bench.reader.forget("prod")
    assert await bench.state(60.0) == "Disabled"


async def test_a_change_during_a_read_is_not_hidden_by_its_answer() -> None:
    bench = Bench()
    bench.kube.gate = asyncio.Event()
    bench.kube.answer("get", master_key_body(state="Enabled"))
    old = asyncio.create_task(bench.state(60.0))
    await settle()
    bench.change("Disabled")
    bench.reader.forget("prod")
    new = asyncio.create_task(bench.state(60.0))
    await settle()
    bench.kube.gate.set()
    assert await asyncio.gather(old, new) == ["Enabled", "Disabled"]
    assert await bench.state(60.0) == "Disabled"


async def test_who_gives_up_waiting_does_not_take_the_answer_from_the_others() -> None:
    bench = Bench()
    bench.kube.gate = asyncio.Event()
    first, second = (asyncio.create_task(bench.state()) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    bench.kube.gate.set()
    assert await second == "Enabled"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, Reason.KEY_NOT_FOUND), (0, Reason.UNAVAILABLE), (403, Reason.UNAVAILABLE), (500, Reason.UNAVAILABLE)],
)
async def test_a_read_that_fails_is_a_refusal_whatever_is_remembered(status: int, reason: Reason) -> None:
    bench = Bench()
    await bench.state()
    bench.clock.advance(1.0)
    bench.kube.answer("get", ApiError(status, "Whatever"))
    with pytest.raises(StrongroomError) as caught:
        await bench.state()
    assert caught.value.reason is reason
    assert await bench.state() == "Enabled"
