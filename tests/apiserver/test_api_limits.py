# SPDX-License-Identifier: Apache-2.0
"""How many requests are served at a time, how long senders may take, and how the server stops."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.apiserver import resources
from tests.apiserver.harness import GROUP_VERSION, Harness, encrypt_request

KEYS = f"{GROUP_VERSION}/namespaces/shop/keys"
ENCRYPT = f"{KEYS}/prod/encrypt"


async def test_requests_beyond_the_limit_wait_then_are_throttled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_PLACE_WAIT_SECONDS", 0.05)
    harness = Harness(tmp_path, client_burst=2)
    harness.service.gate = asyncio.Event()
    async with harness, harness.client() as client:
        served = [asyncio.create_task(client("POST", ENCRYPT, body=encrypt_request())) for _ in range(2)]
        async with asyncio.timeout(10):
            for _ in served:
                await harness.service.arrived.acquire()

        refused = await client("POST", ENCRYPT, body=encrypt_request())
        assert (refused.status, refused.json["reason"]) == (429, "Throttled")
        assert refused.headers["Retry-After"] == "1"
        assert (await client("GET", GROUP_VERSION)).status == 200, "discovery keeps the API available"

        harness.service.gate.set()
        assert [(await task).status for task in served] == [201, 201]
        assert (await client("POST", ENCRYPT, body=encrypt_request())).status == 201


async def test_a_body_that_does_not_arrive_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_BODY_SECONDS", 0.05)
    done = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await done.wait()

    async with Harness(tmp_path) as harness, harness.client() as client:
        answer = await client("POST", ENCRYPT, raw=slow())
        done.set()

    assert (answer.status, answer.json["reason"]) == (408, "Timeout")


async def test_stop_lets_requests_under_way_end_and_refuses_new_connections(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.service.gate = asyncio.Event()
    async with harness, harness.client() as client:
        under_way = asyncio.create_task(client("POST", ENCRYPT, body=encrypt_request()))
        async with asyncio.timeout(10):
            await harness.service.arrived.acquire()
        port = harness.server.port

        stopping = asyncio.create_task(harness.server.stop())
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    break
                writer.close()
        harness.service.gate.set()

        assert (await under_way).status == 201
        await stopping


async def test_stop_without_start_is_harmless(tmp_path: Path) -> None:
    await Harness(tmp_path).server.stop()


async def test_a_port_that_is_taken_is_an_error_at_once(api: Harness) -> None:
    second = api.new_server()
    second._config = type(api.server._config)(address="127.0.0.1", port=api.server.port)

    with pytest.raises(OSError):
        await second.start()
