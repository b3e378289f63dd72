# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from strongroom.controllers.relist import Relister
from strongroom.kube.client import ApiError
from strongroom.model.ids import ObjectKey
from strongroom.model.masterkey import MasterKey
from strongroom.model.secretfacts import SecretFacts
from tests.unit.fakes import FakeKube, encrypted_secret_body, loop_time, master_key_body, run_in_virtual_time

KMS = "/apis/kms.strongroom.dev/v1alpha1"
DB = ObjectKey("shop", "db")


class FakeSecrets:
    """Knows what it was told and what it was asked to read."""

    def __init__(self) -> None:
        self.known: dict[ObjectKey, int] = {}
        self.refreshed: list[ObjectKey] = []
        self.targets: list[SecretFacts] | None = None
        self.failure: ApiError | None = None

    def known_keys(self) -> list[tuple[ObjectKey, int]]:
        return list(self.known.items())

    def knows(self, key: ObjectKey, version: int) -> bool:
        return self.known.get(key, -1) >= version

    def observe_gone(self, key: ObjectKey, version: int) -> None:
        assert version >= self.known.pop(key)

    def observe_targets(self, targets: list[SecretFacts], version: int) -> None:
        del version
        self.targets = targets

    async def refresh(self, key: ObjectKey) -> None:
        self.refreshed.append(key)
        if self.failure:
            raise self.failure


class Bench:
    def __init__(self, *, watching: bool = True, seconds: float = 600.0) -> None:
        self.kube = FakeKube()
        self.secrets = FakeSecrets()
        self.keys: list[list[str]] = []
        self.lists: list[float] = []
        self.relister = Relister(
            self.kube,  # type: ignore[arg-type]
            self.secrets,  # type: ignore[arg-type]
            on_master_keys=self._on_master_keys,
            watching=watching,
            seconds=seconds,
        )
        self.kube._store(f"{KMS}/customermasterkeys/prod", master_key_body())
        self.version = self.stand()

    def _on_master_keys(self, keys: list[MasterKey], version: int) -> None:
        del version
        self.keys.append([key.name for key in keys])
        self.lists.append(loop_time() - 1000.0)

    def stand(self) -> int:
        stored = self.kube._store(f"{KMS}/namespaces/shop/encryptedsecrets/db", encrypted_secret_body())
        return int(stored["metadata"]["resourceVersion"])


def running(test: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        bench = Bench(**options)
        task = asyncio.create_task(bench.relister.run({}))
        await test(bench)
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run_in_virtual_time(main)


@pytest.mark.parametrize("watching", [True, False])
async def test_the_barrier_lists_every_kind_and_secrets_only_where_they_are_watched(watching: bool) -> None:
    bench = Bench(watching=watching)
    assert await bench.relister.barrier() == {DB: bench.version}
    assert bench.keys == [["prod"]]
    assert bench.secrets.targets == ([] if watching else None)
    selectors = [selector for method, _, selector in bench.kube.calls if method == "list"]
    assert selectors == ([None, "strongroom.dev/managed=true", None] if watching else [None, None])


def test_the_barrier_waits_for_the_api_server_however_long_that_takes() -> None:
    async def main() -> None:
        bench = Bench()
        bench.kube.answer("list", *[ApiError(0, "TimeoutError")] * 30)
        assert await bench.relister.barrier() == {DB: bench.version}
        assert bench.lists == [60.0]

    run_in_virtual_time(main)


async def test_what_a_list_no_longer_shows_is_gone_unless_it_is_newer_than_the_list() -> None:
    bench = Bench()
    bench.secrets.known = {DB: bench.version, ObjectKey("shop", "old"): 1, ObjectKey("shop", "new"): 99}
    await bench.relister.barrier()
    assert bench.secrets.known.keys() == {DB, ObjectKey("shop", "new")}


def test_everything_is_listed_regularly() -> None:
    async def test(bench: Bench) -> None:
        await asyncio.sleep(2000.0)
        assert bench.lists == [630.0, 1260.0, 1890.0]  # each comparison waits 30 s for the watch

    running(test)


def test_a_trigger_lists_soon_and_once_more_when_the_watches_have_begun() -> None:
    async def test(bench: Bench) -> None:
        await asyncio.sleep(100.0)
        bench.relister.trigger()
        await asyncio.sleep(200.0)
        assert bench.lists == [100.0, 130.0]

    running(test)


def test_a_second_trigger_while_the_first_is_under_way_is_not_lost() -> None:
    async def test(bench: Bench) -> None:
        await asyncio.sleep(100.0)
        bench.relister.trigger()
        await asyncio.sleep(10.0)
        bench.relister.trigger()
        await asyncio.sleep(300.0)
        assert bench.lists[0] == 100.0
        assert bench.lists[-1] >= 140.0  # 30 s after the second trigger
        assert len(bench.lists) <= 4

    running(test)


def test_what_the_watch_did_not_deliver_in_time_is_read_singly() -> None:
    async def test(bench: Bench) -> None:
        bench.relister.trigger()
        await asyncio.sleep(31.0)
        assert bench.lists == [30.0]
        assert bench.secrets.refreshed == []
        bench.secrets.known = {DB: bench.version - 1}
        await asyncio.sleep(30.0)
        assert bench.secrets.refreshed == [DB]

    running(test)


def test_what_the_watch_did_deliver_is_not_read_again() -> None:
    async def test(bench: Bench) -> None:
        bench.secrets.known = {DB: bench.version}
        bench.relister.trigger()
        await asyncio.sleep(1000.0)
        assert bench.secrets.refreshed == []

    running(test)


def test_a_single_read_that_fails_makes_for_another_list() -> None:
    async def test(bench: Bench) -> None:
        bench.secrets.failure = ApiError(500, "InternalError")
        await asyncio.sleep(700.0)
        assert bench.lists[:3] == [630.0, 660.0, 690.0]

    running(test)
