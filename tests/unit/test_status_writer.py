# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from strongroom.controllers.statuswriter import StatusWriter, Written
from strongroom.errors import Reason
from strongroom.kube.client import ApiError
from strongroom.model import conditions
from tests.unit.fakes import FakeKube

PATH = "/apis/kms.strongroom.dev/v1alpha1/customermasterkeys/prod"
READY = conditions.ready(Reason.KEY_READY, "it is", 1)


class Bench:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.kinds: list[str] = []
        self.writer = StatusWriter(self.kube, on_write=self.kinds.append)  # type: ignore[arg-type]
        metadata = {"name": "prod", "uid": "u", "resourceVersion": "0", "generation": 3}
        self.kube.objects[PATH] = {"metadata": metadata, "status": {"old": True}}

    async def write(self, *, uid: str = "u", old: Any = None, resource_version: str = "") -> Written | None:
        return await self.writer.write(
            "CustomerMasterKey", PATH, uid=uid, old=old or {}, fields={"state": "Enabled", "shared": None},
            new_conditions=READY, resource_version=resource_version,
        )  # fmt: skip

    @property
    def status(self) -> Any:
        return self.kube.objects[PATH]["status"]


async def test_the_status_is_replaced_as_a_whole_and_told_with_the_generation_under_it() -> None:
    bench = Bench()
    written = await bench.write()
    assert written is not None
    assert (written.resource_version, written.generation) == (1, 3)
    assert written.status == bench.status
    assert bench.status.keys() == {"state", "conditions"}
    assert bench.kinds == ["CustomerMasterKey"]


async def test_what_differs_in_nothing_is_not_written() -> None:
    bench = Bench()
    written = await bench.write()
    assert written is not None
    assert await bench.write(old=written.status) is None
    assert (len(bench.kube.calls), bench.kinds) == (1, ["CustomerMasterKey"])


async def test_a_successor_of_the_same_name_keeps_its_status() -> None:
    bench = Bench()
    assert await bench.write(uid="former") is None
    with pytest.raises(ApiError) as caught:
        await bench.write(uid="former", resource_version="0")
    assert caught.value.status == 409
    assert (bench.status, bench.kinds) == ({"old": True}, [])


async def test_an_object_that_is_gone_needs_no_status() -> None:
    bench = Bench()
    bench.kube.objects.clear()
    assert await bench.write() is None
    assert bench.kinds == []


@pytest.mark.parametrize(("version", "written"), [("0", True), ("7", False)])
async def test_a_write_may_be_meant_for_one_version_alone(version: str, written: bool) -> None:
    bench = Bench()
    if written:
        assert await bench.write(resource_version=version) is not None
        return
    with pytest.raises(ApiError) as caught:
        await bench.write(resource_version=version)
    assert (caught.value.status, bench.status) == (409, {"old": True})


@pytest.mark.parametrize("resource_version", ["", "0"])
@pytest.mark.parametrize(
    "error",
    [
        ApiError(422, "Invalid"),
        ApiError(422, "Invalid", fields=("status.state",)),
        ApiError(403, "Forbidden"),
        ApiError(0, "TimeoutError"),
    ],
    ids=["policy", "schema", "rbac", "away"],
)
async def test_a_refused_status_is_an_error_and_never_taken_for_a_changed_object(
    error: ApiError, resource_version: str
) -> None:
    bench = Bench()
    bench.kube.answer("patch", error)
    with pytest.raises(ApiError) as caught:
        await bench.write(resource_version=resource_version)
    assert caught.value is error
    assert bench.kinds == []
