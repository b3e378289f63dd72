# SPDX-License-Identifier: Apache-2.0
"""What strangers can make the listener do: nothing but wait, briefly, in small numbers."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from strongroom.apiserver import listener
from tests.apiserver.harness import GROUP_VERSION, Client, Harness

KEYS = f"{GROUP_VERSION}/namespaces/shop/keys"


@asynccontextmanager
async def _silent(api: Harness) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that sends nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    try:
        yield reader
    finally:
        writer.close()


async def _ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        try:
            return await reader.read(1) == b""
        except ConnectionError:
            return True


async def test_a_client_that_does_not_shake_hands_is_let_go(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.05)

    async with _silent(api) as reader:
        assert await _ended(reader)


async def test_headers_of_a_client_without_certificate_are_not_taken(api: Harness) -> None:
    async with api.client(anonymous=True) as anonymous:
        with pytest.raises(aiohttp.ClientError):
            await anonymous("GET", KEYS, headers=[(f"X-{n}", "x" * 8000) for n in range(4000)])

    assert api.requests == []


async def test_silent_clients_do_not_keep_the_front_proxy_out(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_HANDSHAKES", 3)

    async with AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(_silent(api)) for _ in range(10)]
        async with api.client() as client:
            assert (await client("GET", KEYS)).status == 200
        ended = [await _ended(reader) for reader in strangers[:7]]

    assert all(ended), "the oldest make room"


async def test_connections_beyond_the_limit_are_closed_and_the_others_go_on(
    api: Harness, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client("GET", KEYS)).status == 200
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 1)

    async with api.client() as second:
        with pytest.raises(aiohttp.ClientError):
            await second("GET", KEYS)

    assert (await client("GET", KEYS)).status == 200


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ECONNABORTED])
async def test_failing_to_accept_once_does_not_end_the_listener(
    api: Harness, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(listener, "_ACCEPT_RETRY_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    failures = [OSError(code, "as the kernel says")]

    async def fail_once(bound: Any) -> Any:
        if failures:
            raise failures.pop()
        return await accept(bound)

    monkeypatch.setattr(loop, "sock_accept", fail_once)
    for _ in range(2):  # the first is accepted by the call that began before
        async with api.client() as client:
            assert (await client("GET", KEYS)).status == 200

    assert failures == []
