# SPDX-License-Identifier: Apache-2.0
"""The reconciler with its queue, in virtual time, before a fake API server and a fake door to decryption."""

import asyncio
import base64
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from strongroom.controllers import encryptedsecret as reconciler_module
from strongroom.controllers import waiting
from strongroom.controllers.encryptedsecret import EncryptedSecretReconciler
from strongroom.controllers.workqueue import Lane
from strongroom.errors import AccessDenied, InvalidCiphertext, Reason, StrongroomError
from strongroom.kms.service import Decrypted, DecryptItem
from strongroom.kube.client import ApiError
from strongroom.metrics import Metrics
from strongroom.model import encryptedsecret, secretfacts
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import KeyVersion
from strongroom.model.plaintext import Plaintext
from strongroom.model.principal import Caller, ObjectReference, Principal
from tests.unit.fakes import FakeKube, encrypted_secret_body, loop_time, run_in_virtual_time

PATH = "/apis/kms.strongroom.dev/v1alpha1/namespaces/shop/encryptedsecrets/db"
TARGET = "/api/v1/namespaces/shop/secrets/db"
KEY = encryptedsecret.parse(encrypted_secret_body()).key


class Bench:
    """One EncryptedSecret `db` in namespace `shop`. `failure`, if set, is raised by each decryption."""

    def __init__(self, *, watching: bool = True, **spec: Any) -> None:
        self.kube = FakeKube()
        self.failure: BaseException | None = None
        self.granted = False
        self.decrypted: list[list[str]] = []
        self.plaintexts: list[Plaintext] = []
        self.refusals: list[StrongroomError] = []
        self.events: list[str] = []
        self.metrics = Metrics()
        self.reconciler = EncryptedSecretReconciler(
            kube=self.kube,  # type: ignore[arg-type]
            service=SimpleNamespace(decrypt=self._decrypt, record_refusal=self._record_refusal),  # type: ignore[arg-type]
            permission=self._permission,
            token_of=lambda _: ("default", False),
            recorder=SimpleNamespace(record=self._record),  # type: ignore[arg-type]
            metrics=self.metrics,
            watching=watching,
            denied_metadata=lambda key: key.startswith("replicate/"),
            workers=2,
            workers_per_token=2,
        )
        self.stand(**spec)

    # What the reconciler uses

    async def _decrypt(self, caller: Caller, key_name: str, items: Sequence[DecryptItem]) -> Decrypted:
        assert (caller.namespace, key_name) == ("shop", "prod")
        self.decrypted.append([item.text for item in items])
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        made = [Plaintext(b"value of " + item.text.encode()) for item in items]
        self.plaintexts += made
        return Decrypted([KeyVersion(1)], made)

    def _record_refusal(self, caller: Caller, key_name: str, error: StrongroomError) -> None:
        assert (caller.principal.username, key_name) == ("system:serviceaccount:shop:default", "prod")
        self.refusals.append(error)

    async def _permission(self, principal: Principal, key_name: str, namespace: str) -> bool:
        assert (principal, key_name, namespace) == (Principal.service_account("shop", "default"), "prod", "shop")
        return self.granted

    def _record(self, regarding: ObjectReference, *_: Any, reason: str, **__: Any) -> None:
        assert regarding.name == "db"
        self.events.append(reason)

    # What users do

    def stand(self, *, generation: int = 1, status: Any = None, **spec: Any) -> EncryptedSecret:
        """The object is there in this state; so is what a watch says of it."""
        known = self.kube.objects.get(PATH, {"status": {}})
        body = encrypted_secret_body(generation=generation, status=status or known["status"], **spec)
        self.kube._store(PATH, body)
        return encryptedsecret.parse(body)

    def observe(self) -> None:
        """The watch delivers the object as it stands."""
        self.reconciler.observe(encryptedsecret.parse(self.kube.objects[PATH]), Lane.LIVE)

    def applied(self, *, reason: str = "Decrypted", applied: bool = True) -> None:
        """An earlier process has judged the object."""
        secret = encryptedsecret.parse(self.kube.objects[PATH])
        ready = reason == "Decrypted"
        condition = {"type": "Ready", "status": str(ready), "reason": reason, "lastTransitionTime": "t"}
        status = {"observedGeneration": secret.generation, "conditions": [condition]}
        self.kube.objects[PATH]["status"] = status | ({"appliedSpec": secret.spec_digest} if applied else {})

    # What came of it

    @property
    def status(self) -> Any:
        return self.kube.objects[PATH]["status"]

    @property
    def reason(self) -> str:
        return str(encryptedsecret.parse(self.kube.objects[PATH]).reason)

    @property
    def conditions(self) -> list[str]:
        return [condition["type"] for condition in self.status["conditions"] if condition["status"] == "True"]

    @property
    def data(self) -> dict[str, str]:
        data = self.kube.objects[TARGET]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (waiting, reconciler_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop_time))


def running(test: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a test beside the queue, in virtual time."""

    async def main() -> None:
        bench = Bench(**options)
        task = asyncio.create_task(bench.reconciler.queue.run())
        await test(bench)
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await bench.reconciler.close()
        assert all(set(plaintext.reveal()) == {0} for plaintext in bench.plaintexts), "a plaintext was not wiped"

    run_in_virtual_time(main)


def test_a_new_object_becomes_a_secret_once() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.data == {"password": "value of U1Ix"}
        assert (bench.reason, bench.conditions, bench.status["keyVersions"]) == ("Decrypted", ["Ready"], [1])
        bench.observe()  # the echo of our own write
        await asyncio.sleep(1000.0)
        assert len(bench.decrypted) == 1
        assert bench.events == ["Decrypted"]
        assert [method for method, _, _ in bench.kube.calls] == ["create", "patch"]

    running(test)


def test_what_is_as_it_should_be_after_a_restart_costs_nothing() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        target = secretfacts.parse(bench.kube.objects[TARGET])
        bench.kube.calls.clear()
        again = Bench()
        again.kube.objects = bench.kube.objects
        again.reconciler.observe_targets([target], target.resource_version)
        again.observe()
        task = asyncio.create_task(again.reconciler.queue.run())
        await asyncio.sleep(1000.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (again.kube.calls, again.decrypted, again.events) == ([], [], [])

    running(test)


def test_an_edit_under_a_status_write_is_not_lost() -> None:
    """The answer to our own write is newer than the edit, so the edit would look like old news."""

    async def test(bench: Bench) -> None:
        edited: list[EncryptedSecret] = []

        def edit() -> None:
            edited.append(bench.stand(generation=2, encryptedData={"password": "U1IxNEW"}))

        bench.kube.meanwhile["patch"] = edit
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.data == {"password": "value of U1Ix"}
        assert bench.status["observedGeneration"] == 1
        bench.reconciler.observe(edited[0], Lane.LIVE)
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.data == {"password": "value of U1IxNEW"}
        assert (bench.status["observedGeneration"], bench.reason) == (2, "Decrypted")

    running(test)


def test_an_edit_under_a_status_write_is_not_lost_when_the_watch_brings_only_the_last_state() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.meanwhile["patch"] = lambda: bench.stand(generation=2, suspend=True) and None
        bench.failure = InvalidCiphertext(where="it")
        bench.observe()
        await asyncio.sleep(1.0)
        bench.observe()
        await asyncio.sleep(1.0)
        assert (bench.status["observedGeneration"], bench.reason) == (2, "Suspended")

    running(test)


def test_a_status_that_cannot_be_written_is_no_reason_to_decrypt_at_once() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.answer("patch", *[ApiError(500, "InternalError")] * 1000)
        bench.observe()
        await asyncio.sleep(60.0)
        tries = len(bench.decrypted)
        assert 5 <= tries <= 12  # 0.2 s, 0.4 s, ... each from a quarter of that on
        await asyncio.sleep(600.0)
        assert len(bench.decrypted) - tries <= 41  # a minute apart, from a quarter of that on
        assert bench.events == []
        bench.kube.answers.clear()
        await asyncio.sleep(61.0)
        assert (bench.reason, bench.events) == ("Decrypted", ["Decrypted"])

    running(test)


def test_the_api_servers_wish_for_a_pause_is_granted() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.answer("create", ApiError(429, "TooManyRequests", retry_after=30.0))
        bench.observe()
        await asyncio.sleep(29.0)
        assert len(bench.decrypted) == 1
        await asyncio.sleep(2.0)
        assert bench.reason == "Decrypted"

    running(test)


def test_a_bad_blob_is_tried_again_only_when_its_key_has_changed() -> None:
    async def test(bench: Bench) -> None:
        bench.failure = InvalidCiphertext(where="it")
        bench.observe()
        await asyncio.sleep(1000.0)
        assert (bench.reason, bench.conditions) == ("InvalidCiphertext", ["Stalled"])
        assert (len(bench.decrypted), bench.events) == (1, ["InvalidCiphertext"])
        bench.failure = None
        bench.reconciler.parking.key_changed("staging")
        await asyncio.sleep(1000.0)
        assert len(bench.decrypted) == 1
        bench.reconciler.parking.key_changed("prod")
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.data) == ("Decrypted", {"password": "value of U1Ix"})

    running(test)


def test_a_bad_blob_of_an_earlier_process_waits_for_its_key_too() -> None:
    async def test(bench: Bench) -> None:
        bench.applied(reason="InvalidCiphertext", applied=False)
        bench.observe()
        await asyncio.sleep(100.0)
        assert (bench.decrypted, bench.kube.calls) == ([], [])
        bench.reconciler.parking.key_changed("prod")
        await asyncio.sleep(1.0)
        assert bench.reason == "Decrypted"

    running(test)


@pytest.mark.parametrize("method", ["create", "patch"])
def test_that_a_key_changed_is_not_forgotten_over_an_error_of_the_api_server(method: str) -> None:
    async def test(bench: Bench) -> None:
        bench.applied(reason="InvalidCiphertext", applied=False)
        bench.observe()
        await asyncio.sleep(1.0)
        bench.kube.answer(method, ApiError(500, "InternalError"))
        bench.reconciler.parking.key_changed("prod")
        await asyncio.sleep(10.0)
        assert (len(bench.decrypted), bench.reason) == (2, "Decrypted")

    running(test)


def test_a_key_that_changes_during_the_try_is_not_waited_for() -> None:
    async def test(bench: Bench) -> None:
        error = StrongroomError(Reason.KEY_DISABLED, "it is Disabled")

        async def decrypt(*_: Any) -> Decrypted:
            bench.decrypted.append([])
            if len(bench.decrypted) == 1:
                bench.reconciler.parking.key_changed("prod")  # enabled, after it was read
                raise error
            return Decrypted([KeyVersion(1)], [Plaintext(b"x")])

        bench.reconciler._service = SimpleNamespace(decrypt=decrypt)  # type: ignore[assignment]
        bench.observe()
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.events) == ("Decrypted", ["Decrypted"])

    running(test)


def test_a_denial_is_reconciling_for_a_minute_then_stalled_and_ends_with_the_grant() -> None:
    async def test(bench: Bench) -> None:
        bench.failure = AccessDenied(who="it", may_not="use it")
        bench.observe()
        await asyncio.sleep(50.0)
        assert (bench.reason, bench.conditions) == ("AccessDenied", ["Reconciling"])
        await asyncio.sleep(50.0)
        assert (bench.reason, bench.conditions) == ("AccessDenied", ["Stalled"])
        assert len(bench.decrypted) == 1
        bench.failure, bench.granted = None, True
        await asyncio.sleep(31.0)
        assert (bench.reason, bench.conditions) == ("Decrypted", ["Ready"])

    running(test)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(
            {"template": {"type": "kubernetes.io/service-account-token"}}, "ForbiddenSecretType", id="forbidden-type"
        ),
        pytest.param({"scope": "Galaxy"}, "UnsupportedFormat", id="unknown-scope"),
        pytest.param({"encryptionContext": {"a": 1}}, "InvalidEncryptionContext", id="bad-context"),
    ],
)
def test_an_object_that_is_wrong_is_refused_on_the_record_and_nothing_is_decrypted(
    spec: dict[str, Any], reason: str
) -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(100.0)
        assert [error.reason.value for error in bench.refusals] == [reason]
        assert (bench.reason, bench.conditions, bench.events) == (reason, ["Stalled"], [reason])
        assert bench.decrypted == []
        assert TARGET not in bench.kube.objects

    running(test, **spec)


def test_while_a_foreign_secret_is_in_the_way_nothing_is_decrypted_again() -> None:
    async def test(bench: Bench) -> None:
        metadata = {"namespace": "shop", "name": "db", "uid": "u", "managedFields": []}
        bench.kube._store(TARGET, {"metadata": metadata, "data": {"theirs": "eA=="}})
        bench.observe()
        await asyncio.sleep(600.0)
        assert (bench.reason, bench.conditions) == ("TargetNotOwned", ["Stalled"])
        assert len(bench.decrypted) == 1
        assert bench.kube.objects[TARGET]["data"] == {"theirs": "eA=="}
        del bench.kube.objects[TARGET]
        await asyncio.sleep(61.0)
        assert (bench.reason, len(bench.decrypted)) == ("Decrypted", 2)

    running(test)


def test_a_rejected_write_is_tried_again_with_backoff() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.answer("create", *[ApiError(403, "Forbidden")] * 20)
        bench.observe()
        await asyncio.sleep(300.0)
        assert (bench.reason, bench.conditions) == ("TargetRejected", ["Reconciling"])
        assert 9 < len(bench.decrypted) <= 20
        await asyncio.sleep(1200.0)
        assert bench.reason == "Decrypted"
        assert bench.events == ["TargetRejected", "Decrypted"]

    running(test)


def test_a_denied_label_is_refused_on_the_record_and_nothing_is_decrypted() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert {error.reason.value for error in bench.refusals} == {"TargetRejected"}
        assert (bench.reason, bench.events, bench.decrypted) == ("TargetRejected", ["TargetRejected"], [])
        assert TARGET not in bench.kube.objects

    running(test, template={"metadata": {"labels": {"replicate/to": "*"}}})


def test_a_secret_that_was_changed_is_repaired_from_blobs_read_anew() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        body = bench.kube.objects[TARGET]
        body["metadata"]["managedFields"] += [{"manager": "kubectl-edit", "fieldsV1": {"f:data": {"f:extra": {}}}}]
        body["data"]["extra"] = "eA=="
        body["metadata"]["resourceVersion"] = "900"
        bench.reconciler.observe_target(secretfacts.parse(body), gone=False)
        await asyncio.sleep(2.0)
        assert bench.data == {"password": "value of U1Ix"}
        assert bench.decrypted == [["U1Ix"], ["U1Ix"]]
        assert bench.kube.calls[2][:2] == ("get", PATH)

    running(test)


def test_in_a_namespace_that_goes_away_nothing_is_tried_again() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.answer("create", ApiError(404, "NotFound"))
        bench.observe()
        await asyncio.sleep(1000.0)
        assert [method for method, _, _ in bench.kube.calls] == ["create"]

    running(test)


def test_a_suspended_object_is_left_as_it_is() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(100.0)
        assert (bench.reason, bench.decrypted) == ("Suspended", [])
        assert TARGET not in bench.kube.objects

    running(test, suspend=True)
