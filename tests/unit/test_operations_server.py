# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from strongroom.metrics import Metrics
from strongroom.operations import OperationsServer


class Bench:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.server = OperationsServer(self.metrics)
        self.port = 0

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    started = Bench()
    await started.server.start("127.0.0.1", 0)
    ((_, started.port),) = started.server._runner.addresses
    yield started
    await started.server.stop()


async def test_before_anything_is_known_it_is_alive_and_not_ready(bench: Bench) -> None:
    """Whoever waits for the API server must not be taken for hung, and be restarted for that."""
    assert await bench.get("/healthz") == (200, "ok\n")
    assert await bench.get("/readyz") == (503, "starting\n")
    status, text = await bench.get("/metrics")
    assert status == 200
    assert "strongroom_build_info" in text


@pytest.mark.parametrize("healthy", [True, False])
@pytest.mark.parametrize("ready", [True, False])
async def test_then_it_answers_what_it_is_told_at_each_request(bench: Bench, healthy: bool, ready: bool) -> None:
    answers = {"healthy": True, "ready": True}
    bench.server.ask(healthy=lambda: answers["healthy"], ready=lambda: answers["ready"])
    answers |= {"healthy": healthy, "ready": ready}
    assert (await bench.get("/healthz"))[0] == (200 if healthy else 503)
    assert (await bench.get("/readyz"))[0] == (200 if ready else 503)


@pytest.mark.parametrize("path", ["/", "/secrets", "/metrics/../healthz/x", "/debug"])
async def test_there_is_nothing_else(bench: Bench, path: str) -> None:
    assert (await bench.get(path))[0] == 404


async def test_a_port_that_is_taken_is_an_error(bench: Bench) -> None:
    other = OperationsServer(Metrics())
    with pytest.raises(OSError, match="in use"):
        await other.start("127.0.0.1", bench.port)
    await other.stop()


async def test_after_stopping_nobody_answers(bench: Bench) -> None:
    await bench.server.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await asyncio.wait_for(bench.get("/healthz"), 5)
