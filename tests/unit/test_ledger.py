# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import uuid

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.kms.ledger import Ledger
from strongroom.kube.client import ApiError
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.limits import ENCRYPTIONS_BLOCK, ENCRYPTIONS_LIMIT, ENCRYPTIONS_WARN
from tests.unit.fakes import KEY_ID, FakeKube, settle

PATH = f"/api/v1/namespaces/strongroom/configmaps/strongroom-ledger-{KEY_ID}"
BLOCK = ENCRYPTIONS_BLOCK


def ref(version: int = 1, key_id: uuid.UUID = KEY_ID) -> KeyVersionRef:
    return KeyVersionRef(KeyId(key_id), KeyVersion(version))


class Bench:
    def __init__(self, *, used: int | None = None) -> None:
        self.kube = FakeKube()
        self.warnings: list[tuple[KeyVersionRef, int]] = []
        if used is not None:
            ledger = {"keyId": str(KEY_ID), "versions": {"1": {"encryptions": used}}}
            metadata = {"name": PATH.rpartition("/")[2], "resourceVersion": "0"}
            self.kube.objects[PATH] = {"metadata": metadata, "data": {"ledger.json": json.dumps(ledger)}}
        self.ledger = self.restart()

    def restart(self) -> Ledger:
        """A process that starts anew, or another replica."""
        warn = lambda key, used: self.warnings.append((key, used))  # noqa: E731
        return Ledger(self.kube, "strongroom", on_warning=warn)  # type: ignore[arg-type]

    def counted(self, version: int = 1) -> int:
        ledger = json.loads(self.kube.objects[PATH]["data"]["ledger.json"])
        assert ledger["keyId"] == str(KEY_ID)
        return int(ledger["versions"][str(version)]["encryptions"])

    @property
    def writes(self) -> int:
        return len(self.kube.bodies("create")) + len(self.kube.bodies("replace"))


async def test_a_block_is_written_before_the_first_encryption_and_serves_until_it_is_used_up() -> None:
    bench = Bench()
    await bench.ledger.take(ref(), 1)
    assert (bench.counted(), bench.writes) == (BLOCK, 1)
    await bench.ledger.take(ref(), BLOCK - 1)
    assert bench.writes == 1
    await bench.ledger.take(ref(), 1)
    assert (bench.counted(), bench.writes) == (2 * BLOCK, 2)


async def test_what_remains_of_a_block_is_not_lost_at_its_end() -> None:
    bench = Bench()
    await bench.ledger.take(ref(), BLOCK - 10)
    await bench.ledger.take(ref(), 64)
    assert bench.counted() == 2 * BLOCK
    await bench.ledger.take(ref(), BLOCK - 54)
    assert bench.writes == 2


async def test_a_crash_makes_the_count_too_high_and_never_too_low() -> None:
    bench = Bench()
    await bench.ledger.take(ref(), 1)
    await bench.restart().take(ref(), 1)
    assert bench.counted() == 2 * BLOCK


async def test_versions_and_keys_are_counted_apart() -> None:
    bench = Bench()
    await bench.ledger.take(ref(1), 1)
    await bench.ledger.take(ref(2), BLOCK)
    await bench.ledger.take(ref(2), 1)
    await bench.ledger.take(ref(1, uuid.UUID(int=9)), 1)
    assert (bench.counted(1), bench.counted(2)) == (BLOCK, 2 * BLOCK)
    assert len(bench.kube.objects) == 2


async def test_requests_at_a_time_reserve_one_block() -> None:
    bench = Bench()
    bench.kube.gate = asyncio.Event()
    taking = [asyncio.create_task(bench.ledger.take(ref(), 64)) for _ in range(100)]
    await settle()
    bench.kube.gate.set()
    await asyncio.gather(*taking)
    assert (bench.counted(), bench.writes) == (BLOCK, 1)


@pytest.mark.parametrize("used", [None, 5 * BLOCK], ids=["both-create", "both-replace"])
async def test_two_replicas_at_a_time_get_a_block_each(used: int | None) -> None:
    bench = Bench(used=used)
    other = bench.restart()
    await asyncio.gather(bench.ledger.take(ref(), 1), other.take(ref(), 1))
    assert bench.counted() == (used or 0) + 2 * BLOCK


@pytest.mark.parametrize(("conflicts", "passes"), [(4, True), (5, False)])
async def test_a_conflict_is_tried_again_a_few_times(conflicts: int, passes: bool) -> None:
    bench = Bench(used=0)
    bench.kube.answer("replace", *[ApiError(409, "Conflict")] * conflicts)
    if passes:
        await bench.ledger.take(ref(), 1)
        return
    with pytest.raises(StrongroomError) as caught:
        await bench.ledger.take(ref(), 1)
    assert caught.value.reason is Reason.UNAVAILABLE


@pytest.mark.parametrize("method", ["get", "create"])
@pytest.mark.parametrize("status", [0, 403, 422, 500])
async def test_without_the_ledger_nothing_may_be_encrypted(method: str, status: int) -> None:
    bench = Bench()
    bench.kube.answer(method, ApiError(status, "Whatever"))
    with pytest.raises(StrongroomError) as caught:
        await bench.ledger.take(ref(), 1)
    assert caught.value.reason is Reason.UNAVAILABLE
    await bench.ledger.take(ref(), 1)
    assert bench.counted() == BLOCK


@pytest.mark.parametrize(
    ("used", "warned"),
    [(ENCRYPTIONS_WARN - 2 * BLOCK, False), (ENCRYPTIONS_WARN - BLOCK, True), (ENCRYPTIONS_WARN, True)],
)
async def test_a_warning_comes_when_the_count_reaches_its_mark(used: int, warned: bool) -> None:
    bench = Bench(used=used)
    await bench.ledger.take(ref(), 1)
    assert bench.warnings == ([(ref(), used + BLOCK)] if warned else [])


@pytest.mark.parametrize(
    ("used", "refused"),
    [(ENCRYPTIONS_LIMIT - BLOCK, False), (ENCRYPTIONS_LIMIT - BLOCK + 1, True), (ENCRYPTIONS_LIMIT, True)],
)
async def test_the_limit_is_never_passed(used: int, refused: bool) -> None:
    bench = Bench(used=used)
    if not refused:
        await bench.ledger.take(ref(), 1)
        assert bench.counted() == ENCRYPTIONS_LIMIT
        return
    with pytest.raises(StrongroomError, match="new CustomerMasterKey") as caught:
        await bench.ledger.take(ref(), 1)
    assert caught.value.reason is Reason.KEY_EXHAUSTED
    assert bench.writes == 0


async def test_what_others_keep_in_the_ledger_stays() -> None:
    bench = Bench(used=0)
    config_map = bench.kube.objects[PATH]
    config_map["data"] |= {
        "note": "kept",
        "ledger.json": json.dumps({"keyId": str(KEY_ID), "versions": {}, "deadline": "x"}),
    }
    await bench.ledger.take(ref(), 1)
    stored = bench.kube.objects[PATH]["data"]
    assert stored["note"] == "kept"
    assert json.loads(stored["ledger.json"])["deadline"] == "x"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(None, id="no-data"),
        pytest.param({}, id="no-field"),
        pytest.param({"ledger.json": ""}, id="empty"),
        pytest.param({"ledger.json": "{"}, id="cut"),
        pytest.param({"ledger.json": "[]"}, id="a-list"),
        pytest.param({"ledger.json": "null"}, id="null"),
        pytest.param({"ledger.json": "{}"}, id="no-versions"),
        pytest.param({"ledger.json": '{"versions": []}'}, id="versions-a-list"),
        pytest.param({"ledger.json": '{"versions": {"1": 7}}'}, id="version-a-number"),
        pytest.param({"ledger.json": '{"versions": {"1": {}}}'}, id="no-count"),
        pytest.param({"ledger.json": '{"versions": {"1": {"encryptions": "many"}}}'}, id="count-a-word"),
        pytest.param({"ledger.json": '{"versions": {"1": {"encryptions": null}}}'}, id="count-null"),
    ],
)
async def test_a_ledger_that_cannot_be_read_is_refused_and_left_for_whoever_mends_it(data: object) -> None:
    bench = Bench(used=0)
    if data is None:
        del bench.kube.objects[PATH]["data"]
    else:
        bench.kube.objects[PATH]["data"] = data
    with pytest.raises(StrongroomError, match="Restore the ConfigMap") as caught:
        await bench.ledger.take(ref(), 1)
    assert caught.value.reason is Reason.UNAVAILABLE
    assert bench.writes == 0
