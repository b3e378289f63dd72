# SPDX-License-Identifier: Apache-2.0
"""The reconciler with its queue, in virtual time, before a fake API server, token and audit log.

`steps` is what it asked of all three, in order: that decides what may be done with a key after a crash or a failure.
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from strongroom.audit.record import Entry
from strongroom.controllers.masterkey import MasterKeyReconciler
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import KeyLabel, KeyMaterial, TokenInfo
from strongroom.kube.client import ApiError
from strongroom.metrics import Metrics
from strongroom.model import masterkey
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from tests.unit.fakes import CLUSTER, CREATED_AT, KEY_ID, OTHER_KEY_ID, FakeKube, master_key_body, run_in_virtual_time

PATH = "/apis/kms.strongroom.dev/v1alpha1/customermasterkeys/prod"
PENDING: dict[str, Any] = {"key_id": None, "pending": (1, KEY_ID)}


def material(
    version: int = 1,
    *,
    cluster: str = CLUSTER,
    name: str = "prod",
    key_id: Any = KEY_ID,
    spec: KeySpec = KeySpec.AES_256,
) -> KeyMaterial:
    ref = KeyVersionRef(KeyId(key_id), KeyVersion(version))
    label = KeyLabel(cluster, name, ref.version, CREATED_AT)
    return KeyMaterial(ref, label, spec, public_key_of(ref, spec), never_extractable=True)


def public_key_of(ref: KeyVersionRef, spec: KeySpec) -> bytes:
    return b"public key of version %d" % ref.version if spec.asymmetric else b""


class FakeToken:
    """Holds `materials`. Each `*_error` is raised as long as it is set."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.materials: list[KeyMaterial] = []
        self.available = True
        self.find_error: StrongroomError | None = None
        self.generate_error: StrongroomError | None = None
        self.verify_error: StrongroomError | None = None
        self.proved_refs: set[KeyVersionRef] = set()
        self.algorithms: dict[KeySpec, Algorithm] = {
            KeySpec.AES_256: Algorithm.AES_256_GCM,
            KeySpec.RSA_3072: Algorithm.RSA_OAEP_SHA1_AES_256_GCM,
        }

    def algorithm(self, spec: KeySpec) -> Algorithm | None:
        return self.algorithms.get(spec)

    async def find_all(self) -> list[KeyMaterial]:
        if self.find_error:
            raise self.find_error
        return list(self.materials)

    async def generate(self, ref: KeyVersionRef, label: KeyLabel, spec: KeySpec) -> KeyMaterial:
        assert label == KeyLabel(CLUSTER, "prod", ref.version, label.created_at)
        self.steps.append(f"generate v{ref.version}")
        if self.generate_error:
            raise self.generate_error
        self.materials.append(KeyMaterial(ref, label, spec, public_key_of(ref, spec), never_extractable=True))
        return self.materials[-1]

    async def verify(self, ref: KeyVersionRef) -> KeyMaterial:
        self.steps.append(f"verify v{ref.version}")
        if self.verify_error:
            raise self.verify_error
        self.proved_refs.add(ref)
        return next(material for material in self.materials if material.ref == ref)

    def proved(self, ref: KeyVersionRef) -> bool:
        return ref in self.proved_refs

    async def info(self) -> TokenInfo:
        return TokenInfo("label", "SoftHSM project", "SoftHSM v2", "serial", "2.6")


class Bench:
    """One CustomerMasterKey `prod`."""

    def __init__(self, **changes: Any) -> None:
        self.steps: list[str] = []
        self.events: list[str] = []
        self.kube = FakeKube()
        self.token = FakeToken(self.steps)
        self.journal_error: StrongroomError | None = None
        self.reconciler = MasterKeyReconciler(
            kube=self.kube,  # type: ignore[arg-type]
            tokens={"default": self.token},  # type: ignore[dict-item]
            certifications={"default": "none"},
            cluster=CLUSTER,
            instance="operator-0",
            principal="system:serviceaccount:strongroom:strongroom",
            journal=SimpleNamespace(success=self._success, refusal=self._refusal),  # type: ignore[arg-type]
            recorder=SimpleNamespace(record=self._record),  # type: ignore[arg-type]
            metrics=Metrics(),
        )
        self.stand(**changes)
        patch_json = self.kube._patch_json

        def patch(path: str, body: Any) -> Any:
            status = body[-1]["value"]
            what = status["conditions"][0]["reason"]
            self.steps.append(f"status {what}{' intent' if 'pendingVersion' in status else ''}")
            return patch_json(path, body)

        self.kube._patch_json = patch  # type: ignore[method-assign]

    def _success(self, entry: Entry) -> None:
        self.steps.append(f"audit {entry.event.value}")
        if self.journal_error:
            raise self.journal_error

    def _refusal(self, entry: Entry, error: StrongroomError) -> None:
        self.steps.append(f"audit {entry.event.value} {error.reason.value}")

    def _record(self, *_: Any, reason: str, **__: Any) -> None:
        self.events.append(reason)

    def stand(self, **changes: Any) -> None:
        self.kube._store(PATH, master_key_body(**changes))

    def change(self, **spec: Any) -> None:
        """The administrator changes the spec, and the watch says so."""
        body = self.kube.objects[PATH]
        body["metadata"]["generation"] += 1
        self.kube._store(PATH, body | {"spec": body["spec"] | spec})
        self.observe()

    def observe(self) -> None:
        self.reconciler.observe(masterkey.parse(self.kube.objects[PATH]))

    @property
    def status(self) -> Any:
        return self.kube.objects[PATH]["status"]

    @property
    def reason(self) -> str:
        return str(self.status["conditions"][0]["reason"])

    @property
    def conditions(self) -> list[tuple[str, str]]:
        return [(entry["type"], entry["status"]) for entry in self.status["conditions"]]

    @property
    def algorithms(self) -> list[str]:
        return [entry["algorithm"] for entry in self.status["versions"]]

    @property
    def published(self) -> list[tuple[int, str]]:
        return [(entry["version"], entry["state"]) for entry in self.status.get("versions", [])]


def running(test: Callable[[Bench], Coroutine[Any, Any, None]], **changes: Any) -> None:
    async def main() -> None:
        bench = Bench(**changes)
        task = asyncio.create_task(bench.reconciler.queue.run())
        await test(bench)
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run_in_virtual_time(main)


def test_a_new_key_is_intended_generated_verified_recorded_and_only_then_published() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == [
            "status KeyNotReady intent", "generate v1", "verify v1", "audit CreateKey", "status KeyReady",
        ]  # fmt: skip
        assert bench.published == [(1, "Primary")]
        assert bench.status["keyId"] == str(bench.token.materials[0].ref.key_id)
        assert "pendingVersion" not in bench.status
        assert bench.events == ["KeyCreated"]
        bench.observe()
        await asyncio.sleep(1000.0)
        assert len(bench.steps) == 5

    running(test, key_id=None)


def test_a_key_that_was_generated_before_a_crash_is_verified_and_recorded_all_the_same() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "audit CreateKey", "status KeyReady"]
        assert (bench.status["keyId"], bench.published) == (str(KEY_ID), [(1, "Primary")])

    running(test, **PENDING)


def test_a_crash_before_the_generation_does_not_choose_another_id() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == ["generate v1", "verify v1", "audit CreateKey", "status KeyReady"]
        assert bench.status["keyId"] == str(KEY_ID)

    running(test, **PENDING)


@pytest.mark.parametrize(
    ("changes", "materials"),
    [
        pytest.param(PENDING, [material()], id="made"),
        pytest.param({"key_id": None}, [material()], id="adopted-by-label"),
        pytest.param({"key_id": None, "requested": KEY_ID}, [material(cluster="f" * 16)], id="adopted-by-id"),
    ],
)
def test_a_key_that_fails_its_verification_is_never_published(
    changes: dict[str, Any], materials: list[KeyMaterial]
) -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = materials
        bench.token.verify_error = StrongroomError(Reason.HSM_ERROR, "it does not decrypt what it encrypted")
        bench.observe()
        await asyncio.sleep(600.0)
        assert bench.reason == "HSMError"
        assert bench.published == []
        assert "keyId" not in bench.status
        assert not [step for step in bench.steps if step.startswith("audit") or step == "status KeyReady"]
        bench.token.verify_error = None
        await asyncio.sleep(61.0)
        assert bench.published == [(1, "Primary")]

    running(test, **changes)


@pytest.mark.parametrize(
    ("changes", "record"),
    [
        pytest.param(PENDING, "audit CreateKey", id="made"),
        pytest.param({"key_id": None}, "audit AdoptKey", id="adopted"),
        pytest.param(
            {"state": "Disabled"},
            "audit ChangeKeyState",
            id="disabled",
        ),
    ],
)
def test_what_cannot_be_recorded_is_not_published(changes: dict[str, Any], record: str) -> None:
    async def test(bench: Bench) -> None:
        if "state" in changes:
            bench.status["state"] = "Enabled"
        bench.token.materials = [material()]
        bench.journal_error = StrongroomError(Reason.AUDIT_UNAVAILABLE, "the disk is full")
        bench.observe()
        await asyncio.sleep(100.0)
        assert bench.reason == "AuditUnavailable"
        assert "status KeyReady" not in bench.steps
        if "state" not in changes:
            assert bench.published == []
        bench.journal_error = None
        await asyncio.sleep(61.0)
        assert bench.steps[-2:] == [record, "status KeyReady"]
        assert bench.published == [(1, "Primary")]

    running(test, **changes)


def test_an_adopted_key_is_verified_and_recorded_before_it_is_published() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(2), material(1)]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "verify v2", "audit AdoptKey", "status KeyReady"]
        assert bench.published == [(1, "DecryptOnly"), (2, "Primary")]
        assert bench.events == ["KeyAdopted"]
        assert "shared" not in bench.status

    running(test, key_id=None)


def test_material_made_elsewhere_is_adopted_by_its_id_and_stays_shared() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(cluster="f" * 16)]
        bench.observe()
        await asyncio.sleep(1.0)
        assert (bench.status["shared"], bench.published) == (True, [(1, "Primary")])

    running(test, key_id=None, requested=KEY_ID)


def test_a_version_of_our_own_that_status_does_not_name_is_verified_and_published() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(1), material(2)]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "verify v2", "status KeyReady"]
        assert bench.published == [(1, "DecryptOnly"), (2, "Primary")]

    running(test)


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param(material(2, cluster="f" * 16), id="of-another-cluster"),
        pytest.param(material(2, name="staging"), id="of-another-key"),
        pytest.param(replace(material(2), label=None), id="unmarked"),
    ],
)
def test_a_version_that_someone_else_put_under_our_id_is_neither_used_nor_published(foreign: KeyMaterial) -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(1), foreign]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "status KeyReady"]
        assert (bench.published, bench.status["currentVersion"]) == ([(1, "Primary")], 1)

    running(test)


def test_what_was_published_is_verified_once_for_each_start_of_the_library_and_nothing_is_written_for_nothing() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        bench.reconciler.token_available("default")
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "status KeyReady"]
        bench.token.proved_refs.clear()
        bench.reconciler.token_available("default")
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "status KeyReady", "verify v1"]

    running(test)


def test_a_published_key_that_is_not_safe_any_more_is_said_to_be_so_and_stays_named() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        bench.token.proved_refs.clear()
        bench.token.verify_error = StrongroomError(Reason.HSM_ERROR, "its value can be read")
        bench.reconciler.token_available("default")
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.published) == ("HSMError", [(1, "Primary")])

    running(test)


def test_a_change_of_state_is_recorded_once_and_before_status_says_so() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        bench.change(state="Disabled")
        await asyncio.sleep(1.0)
        assert bench.steps == ["verify v1", "status KeyReady", "audit ChangeKeyState", "status KeyReady"]
        assert (bench.status["state"], bench.events) == ("Disabled", ["KeyDisabled"])

    running(test)


def test_a_token_that_is_away_takes_nothing_back() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        bench.token.available = False
        bench.token.find_error = StrongroomError(Reason.HSM_UNAVAILABLE, "away")
        bench.change(state="Disabled")
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.published, bench.status["keyId"]) == (
            "HSMUnavailable", [(1, "Primary")], str(KEY_ID),
        )  # fmt: skip
        bench.token.find_error = None
        bench.reconciler.token_available("default")
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.status["state"]) == ("KeyReady", "Disabled")

    running(test)


def test_a_change_of_state_while_the_token_is_away_is_recorded() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        bench.token.find_error = StrongroomError(Reason.HSM_UNAVAILABLE, "away")
        bench.change(state="Disabled")
        await asyncio.sleep(1.0)
        bench.token.find_error = None
        bench.reconciler.token_available("default")
        await asyncio.sleep(1.0)
        assert bench.steps.count("audit ChangeKeyState") == 1

    running(test)


def test_a_failed_generation_is_recorded_and_tried_again_under_the_same_id() -> None:
    async def test(bench: Bench) -> None:
        bench.token.generate_error = StrongroomError(Reason.HSM_ERROR, "no", ckr="CKR_FUNCTION_FAILED")
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps[:3] == ["generate v1", "audit CreateKey HSMError", "status HSMError intent"]
        bench.token.generate_error = None
        await asyncio.sleep(61.0)
        assert (bench.status["keyId"], bench.published) == (str(KEY_ID), [(1, "Primary")])

    running(test, **PENDING)


def test_twins_are_reported_and_looked_for_again_since_a_token_is_mended_by_its_own_tools() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(), material()]
        bench.observe()
        await asyncio.sleep(100.0)
        assert (bench.reason, bench.events) == ("KeyConflict", ["KeyConflict"])
        bench.token.materials.pop()
        await asyncio.sleep(301.0)
        assert bench.reason == "KeyReady"

    running(test)


def test_the_intent_is_written_only_onto_the_very_object_that_was_read() -> None:
    async def test(bench: Bench) -> None:
        def another_leader_was_first() -> None:
            bench.stand(key_id=None, pending=(1, OTHER_KEY_ID))

        bench.kube.meanwhile["patch"] = another_leader_was_first
        bench.observe()
        await asyncio.sleep(2.0)
        assert bench.status["keyId"] == str(OTHER_KEY_ID)
        assert len(bench.token.materials) == 1

    running(test, key_id=None)


def test_an_hsm_that_is_not_configured_is_named() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.reason == "HSMUnavailable"
        assert "'other'" in bench.status["conditions"][0]["message"]
        assert "default" in bench.status["conditions"][0]["message"]

    running(test, hsm="other")


def test_a_key_that_is_gone_or_being_deleted_is_left_alone() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        bench.kube.objects[PATH]["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
        await asyncio.sleep(1.0)
        del bench.kube.objects[PATH]
        bench.reconciler.token_available("default")
        await asyncio.sleep(100.0)
        assert bench.steps == []
        assert [method for method, _, _ in bench.kube.calls] == ["get", "get"]

    running(test)


def test_an_api_server_that_is_away_is_asked_again() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.kube.answer("get", *[ApiError(0, "TimeoutError")] * 3)
        bench.observe()
        await asyncio.sleep(10.0)
        assert bench.steps == ["verify v1", "status KeyReady"]

    running(test)


@pytest.mark.parametrize(
    ("changes", "decisive"),
    [
        pytest.param({"resource_version": 2}, False, id="status-of-it-alone"),
        pytest.param({"resource_version": 1}, False, id="no-news"),
        pytest.param({"resource_version": 2, "pending": (2, KEY_ID)}, False, id="intent"),
        pytest.param({"resource_version": 2, "shared": True}, False, id="shared"),
        pytest.param({"resource_version": 2, "state": "Disabled"}, True, id="disabled"),
        pytest.param({"resource_version": 2, "state": "Frozen"}, True, id="state-unknown"),
        pytest.param({"resource_version": 2, "hsm": "other"}, True, id="moved"),
        pytest.param({"resource_version": 2, "key_spec": "SM4"}, True, id="spec-unknown"),
        pytest.param({"resource_version": 2, "key_id": OTHER_KEY_ID}, True, id="other-material"),
        pytest.param({"resource_version": 2, "key_id": None}, True, id="status-lost"),
        pytest.param({"resource_version": 2, "versions": {1: "DecryptOnly", 2: "Primary"}}, True, id="rotated"),
        pytest.param({"resource_version": 1, "state": "Disabled"}, False, id="old-news"),
    ],
)
async def test_only_what_decides_about_operations_releases_what_waits_for_a_key(
    changes: dict[str, Any], decisive: bool
) -> None:
    reconciler = Bench().reconciler
    assert reconciler.observe(masterkey.parse(master_key_body(resource_version=1))) is True
    assert reconciler.observe(masterkey.parse(master_key_body(**changes))) is decisive


async def test_a_key_that_was_deleted_and_made_again_releases_what_waits_for_it() -> None:
    reconciler = Bench().reconciler
    key = masterkey.parse(master_key_body(resource_version=1))
    reconciler.observe(key)
    successor = master_key_body(resource_version=2)
    successor["metadata"]["uid"] = "another"
    assert reconciler.observe(masterkey.parse(successor)) is True
    assert reconciler.observe_gone(key.key, 3) is True
    assert reconciler.observe_gone(key.key, 3) is False
    assert reconciler.observe(key) is True


async def test_a_key_tells_the_token_it_is_in() -> None:
    bench = Bench()
    assert bench.reconciler.token_of("prod") == ("", False)
    bench.observe()
    assert bench.reconciler.token_of("prod") == ("default", True)
    bench.token.available = False
    assert bench.reconciler.token_of("prod") == ("default", False)
    bench.change(hsm="elsewhere")
    assert bench.reconciler.token_of("prod") == ("elsewhere", False)


# Kinds of keys

RSA: dict[str, Any] = {"key_spec": "RSA_3072", "algorithm": "RSA_OAEP_SHA1_AES_256_GCM"}
UNAUTHENTICATED = ("UnauthenticatedSealing", "True")


def test_a_new_rsa_key_is_published_with_its_public_key_and_what_to_seal_with() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.token.materials[0].spec is KeySpec.RSA_3072
        assert bench.algorithms == ["RSA_OAEP_SHA1_AES_256_GCM"]
        assert bench.status["oaepHash"] == "sha1"
        encoded = base64.b64encode(b"public key of version 1").decode()
        assert bench.status["publicKey"] == f"-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----\n"
        assert bench.conditions == [("Ready", "True"), UNAUTHENTICATED]
        assert "public key" in bench.status["conditions"][1]["message"]

    running(test, key_id=None, **RSA)


def test_an_aes_key_publishes_no_public_key_and_no_such_condition() -> None:
    async def test(bench: Bench) -> None:
        bench.observe()
        await asyncio.sleep(1.0)
        assert not {"publicKey", "oaepHash"} & bench.status.keys()
        assert bench.conditions == [("Ready", "True")]
        assert bench.algorithms == ["AES_256_GCM"]

    running(test, key_id=None)


def test_that_anyone_can_seal_stays_said_while_the_token_is_away_beside_why_the_key_is_not_ready() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(spec=KeySpec.RSA_3072)]
        bench.observe()
        await asyncio.sleep(1.0)
        public_key = bench.status["publicKey"]
        bench.token.find_error = StrongroomError(Reason.HSM_UNAVAILABLE, "away")
        bench.change(state="Disabled")
        await asyncio.sleep(1.0)
        assert bench.conditions == [("Ready", "False"), ("Reconciling", "True"), UNAUTHENTICATED]
        assert (bench.status["publicKey"], bench.status["oaepHash"]) == (public_key, "sha1")

    running(test, **RSA)


def test_the_public_key_is_that_of_the_version_that_encrypts() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material(2, spec=KeySpec.RSA_3072), material(1, spec=KeySpec.RSA_3072)]
        bench.observe()
        await asyncio.sleep(1.0)
        assert base64.b64encode(b"public key of version 2").decode() in bench.status["publicKey"]

    running(test, **RSA)


def test_the_algorithm_of_a_version_stays_when_the_profile_changes_and_new_versions_have_the_new_one() -> None:
    async def test(bench: Bench) -> None:
        bench.token.algorithms[KeySpec.AES_256] = Algorithm.AES_256_GCM_IV16
        bench.token.materials = [material(1), material(2)]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.algorithms == ["AES_256_GCM", "AES_256_GCM_IV16"]

    running(test)


def test_what_to_seal_with_is_that_of_the_version_and_not_of_a_changed_profile() -> None:
    async def test(bench: Bench) -> None:
        bench.token.algorithms[KeySpec.RSA_3072] = Algorithm.RSA_OAEP_SHA256_AES_256_GCM
        bench.token.materials = [material(spec=KeySpec.RSA_3072)]
        bench.observe()
        await asyncio.sleep(1.0)
        assert (bench.algorithms, bench.status["oaepHash"]) == (["RSA_OAEP_SHA1_AES_256_GCM"], "sha1")

    running(test, **RSA)


def test_a_status_of_an_older_release_is_completed() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.algorithms == ["AES_256_GCM"]

    running(test, algorithm=None)


def test_a_token_that_has_no_such_keys_is_asked_for_none_and_the_key_says_so() -> None:
    async def test(bench: Bench) -> None:
        del bench.token.algorithms[KeySpec.RSA_3072]
        bench.observe()
        await asyncio.sleep(1.0)
        assert bench.steps == ["status InvalidKeyUsage"]
        assert bench.conditions == [("Ready", "False"), ("Stalled", "True"), UNAUTHENTICATED]
        assert bench.token.materials == []

    running(test, key_id=None, **RSA)


def test_material_of_another_kind_is_not_adopted() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.published) == ("InvalidKeyUsage", [])

    running(test, key_id=None, requested=KEY_ID, **RSA)


def test_an_algorithm_of_a_newer_release_is_left_as_it_is() -> None:
    async def test(bench: Bench) -> None:
        bench.token.materials = [material()]
        bench.observe()
        await asyncio.sleep(1.0)
        assert (bench.reason, bench.algorithms) == ("UnsupportedFormat", ["XAES_256_GCM"])

    running(test, algorithm="XAES_256_GCM")
