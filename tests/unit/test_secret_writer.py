# SPDX-License-Identifier: Apache-2.0
import base64
from typing import Any

import pytest

from strongroom.controllers.secretwriter import SecretWriter, TargetGone
from strongroom.errors import Reason, StrongroomError
from strongroom.kube.client import ApiError
from strongroom.model import secretfacts
from strongroom.model.plaintext import Plaintext
from strongroom.model.secretfacts import SecretFacts
from tests.unit.fakes import FakeKube, encrypted_secret, owned_fields

COLLECTION = "/api/v1/namespaces/shop/secrets"
PATH = f"{COLLECTION}/db"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
SECRET = encrypted_secret(template={"metadata": {"labels": {"app": "db"}, "annotations": {"note": "ours"}}})
OWNER = SECRET.owner_reference
FOREIGN = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "foreign"}
POLICY = ApiError(403, "Forbidden", by_policy=True)


class Bench:
    def __init__(self, *, watching: bool = True) -> None:
        self.kube = FakeKube()
        self.writes: list[str] = []
        self.writer = SecretWriter(self.kube, watching=watching, on_write=self.writes.append)  # type: ignore[arg-type]

    def stands(
        self,
        *,
        manager: str = "strongroom",
        data: tuple[str, ...] = ("password",),
        value: str = "b2xk",
        **metadata: Any,
    ) -> SecretFacts:
        """A Secret of that name is there; its facts."""
        usual = {
            "namespace": "shop", "name": "db", "uid": "secret-uid", "resourceVersion": "77",
            "labels": SECRET.labels, "annotations": {"note": "ours"}, "ownerReferences": [OWNER],
        }  # fmt: skip
        body: dict[str, Any] = {
            "kind": "Secret", "metadata": usual | metadata, "type": "Opaque", "data": dict.fromkeys(data, value),
        }  # fmt: skip
        body["metadata"].setdefault("managedFields", [owned_fields(body, manager)])
        self.kube.objects[PATH] = body
        return secretfacts.parse(body)

    def changes(self, **metadata: Any) -> None:
        """Someone changes it."""
        self.secret["metadata"] |= metadata

    async def write(self, known: SecretFacts | None = None, *, secret: Any = SECRET) -> SecretFacts:
        return await self.writer.write(secret, {"password": Plaintext(b"new")}, known)

    async def refuse(self, known: SecretFacts | None = None) -> StrongroomError:
        with pytest.raises(StrongroomError) as caught:
            await self.write(known)
        return caught.value

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.kube.calls]

    @property
    def secret(self) -> dict[str, Any]:
        return self.kube.objects[PATH]


@pytest.mark.parametrize("watching", [True, False])
async def test_a_new_secret_is_created_and_nothing_is_asked_before(watching: bool) -> None:
    bench = Bench(watching=watching)
    facts = await bench.write()
    assert bench.methods == ["create"]
    assert bench.writes == ["create"]
    assert bench.secret["data"] == {"password": base64.b64encode(b"new").decode()}
    assert bench.secret["metadata"]["ownerReferences"] == [OWNER]
    assert facts.in_sync_with(SECRET)
    assert "finalizers" not in bench.secret["metadata"]


@pytest.mark.parametrize("immutable", [True, False])
async def test_the_secret_is_of_the_type_and_immutability_asked_for(immutable: bool) -> None:
    bench = Bench()
    await bench.write(secret=encrypted_secret(template={"type": "example.com/own", "immutable": immutable}))
    assert bench.secret["type"] == "example.com/own"
    assert bench.secret.get("immutable", False) is immutable


# Secrets are watched: what stands there is looked at.


async def test_a_change_replaces_exactly_the_secret_that_was_looked_at() -> None:
    bench = Bench()
    known = bench.stands(data=("password", "old"))
    facts = await bench.write(known)
    assert bench.methods == ["replace"]
    (body,) = bench.kube.bodies("replace")
    assert (body["metadata"]["uid"], body["metadata"]["resourceVersion"]) == ("secret-uid", "77")
    assert bench.secret["data"] == {"password": "bmV3"}
    assert facts.in_sync_with(SECRET)
    assert bench.writes == ["update"]


async def test_what_others_put_on_its_metadata_stays_and_what_was_ours_goes() -> None:
    bench = Bench()
    body = {
        "metadata": {
            "labels": dict.fromkeys(["left-the-template", "app"]),
            "annotations": dict.fromkeys(["note", "old"]),
        },
        "data": {"password": ""},
    }
    known = bench.stands(
        labels={"left-the-template": "x", "team": "payments", "app": "changed"},
        annotations={"note": "changed", "old": "x", "seen": "1"},
        ownerReferences=[FOREIGN, OWNER],
        finalizers=["example.com/keep"],
        managedFields=[owned_fields(body)],
    )
    await bench.write(known)
    metadata = bench.secret["metadata"]
    assert metadata["labels"] == {"team": "payments"} | SECRET.labels
    assert metadata["annotations"] == {"seen": "1"} | SECRET.annotations
    assert metadata["ownerReferences"] == [OWNER, FOREIGN]
    assert metadata["finalizers"] == ["example.com/keep"]


async def test_a_taken_name_is_looked_at_by_a_list_of_metadata_and_never_by_a_get() -> None:
    bench = Bench()
    bench.stands()
    await bench.write()
    assert bench.methods == ["create", "list", "replace"]
    assert bench.kube.calls[1] == ("list", COLLECTION, "metadata.name=db")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ownerReferences": []}, id="nobodys"),
        pytest.param({"ownerReferences": [FOREIGN]}, id="owned-by-another"),
        pytest.param({"ownerReferences": [OWNER | {"uid": "u2", "name": "other"}]}, id="of-another-encryptedsecret"),
        pytest.param(
            {"ownerReferences": [FOREIGN | {"controller": True}], "annotations": {"strongroom.dev/adopt": "true"}},
            id="offered-but-controlled",
        ),
        pytest.param({"ownerReferences": [], "annotations": {"strongroom.dev/adopt": "yes"}}, id="offered-wrongly"),
    ],
)
async def test_a_foreign_secret_is_left_untouched(changes: dict[str, Any]) -> None:
    bench = Bench()
    bench.stands(**changes)
    error = await bench.refuse()
    assert error.reason is Reason.TARGET_NOT_OWNED
    assert bench.methods == ["create", "list"]
    assert bench.writes == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ownerReferences": [OWNER | {"uid": "former"}]}, id="predecessors"),
        pytest.param(
            {"ownerReferences": [FOREIGN], "annotations": {"strongroom.dev/adopt": "true", "keep": "x"}}, id="offered"
        ),
    ],
)
async def test_what_is_taken_over_is_ours_afterwards(changes: dict[str, Any]) -> None:
    bench = Bench()
    bench.stands(manager="kubectl", **changes)
    assert (await bench.write()).in_sync_with(SECRET)
    metadata = bench.secret["metadata"]
    assert metadata["ownerReferences"][0] == OWNER
    assert "strongroom.dev/adopt" not in metadata["annotations"]
    assert [owner for owner in metadata["ownerReferences"] if owner.get("controller")] == [OWNER]


async def test_what_kubectl_applied_before_the_adoption_is_not_written_again() -> None:
    bench = Bench()
    annotations = {"strongroom.dev/adopt": "true", LAST_APPLIED: '{"data":{"password":"canary"}}', "keep": "x"}
    bench.stands(manager="kubectl", ownerReferences=[], annotations=annotations)
    await bench.write()
    assert bench.secret["metadata"]["annotations"] == {"keep": "x"} | SECRET.annotations
    assert "canary" not in str(bench.kube.bodies("replace"))


async def test_a_write_that_changed_nothing_gains_no_ownership_so_it_is_claimed() -> None:
    bench = Bench()
    known = bench.stands(manager="velero", value=base64.b64encode(b"new").decode())
    facts = await bench.write(known)
    replaced, claim = bench.kube.bodies("replace")
    assert "managedFields" not in replaced["metadata"]
    assert claim["metadata"]["managedFields"] == [secretfacts.whole_ownership(SECRET)]
    assert (claim["metadata"]["uid"], claim["metadata"]["resourceVersion"]) == ("secret-uid", "1")
    assert bench.writes == ["update", "claim"]
    assert facts.in_sync_with(SECRET)


async def test_a_secret_that_changed_meanwhile_is_looked_at_again() -> None:
    bench = Bench()
    known = bench.stands()
    labelled = {"manager": "kubectl", "fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}}}
    labels, owners = SECRET.labels | {"team": "new"}, [*bench.secret["metadata"]["managedFields"], labelled]
    bench.kube.meanwhile["replace"] = lambda: bench.changes(resourceVersion="78", labels=labels, managedFields=owners)
    await bench.write(known)
    assert bench.methods == ["replace", "list", "replace"]
    assert bench.kube.bodies("replace")[1]["metadata"]["resourceVersion"] == "78"
    assert bench.secret["metadata"]["labels"] == {"team": "new"} | SECRET.labels


async def test_a_foreign_secret_that_took_the_name_meanwhile_is_left_untouched() -> None:
    bench = Bench()
    known = bench.stands()
    bench.kube.meanwhile["replace"] = lambda: bench.changes(uid="other", ownerReferences=[])
    assert (await bench.refuse(known)).reason is Reason.TARGET_NOT_OWNED
    assert bench.secret["data"] == {"password": "b2xk"}


async def test_a_secret_that_was_deleted_meanwhile_is_made_anew() -> None:
    bench = Bench()
    known = bench.stands()
    bench.kube.objects.clear()
    await bench.write(known)
    assert bench.methods == ["replace", "create"]
    assert bench.writes == ["create"]


async def test_a_secret_that_others_keep_changing_is_left_for_the_next_try() -> None:
    bench = Bench()
    known = bench.stands()
    bench.kube.answer("replace", *[ApiError(409, "Conflict")] * 4)
    with pytest.raises(ApiError) as caught:
        await bench.write(known)
    assert caught.value.status == 409
    assert bench.methods == ["replace", "list"] * 4
    assert bench.writes == []


# Secrets are not watched: nothing can be looked at, so the admission policy must keep foreign ones safe.


async def test_unseen_nothing_is_replaced_before_the_policy_has_shown_itself() -> None:
    bench = Bench(watching=False)
    bench.stands()
    bench.kube.answer("dry-run", POLICY)
    await bench.write()
    assert bench.methods == ["create", "dry-run", "replace"]
    (probe,) = bench.kube.bodies("dry-run")
    assert "ownerReferences" not in probe["metadata"]
    assert "data" not in probe
    (body,) = bench.kube.bodies("replace")
    assert not {"uid", "resourceVersion"} & body["metadata"].keys()
    assert bench.secret["data"] == {"password": "bmV3"}
    assert bench.writes == ["update"]


async def test_unseen_and_without_the_policy_nothing_is_replaced() -> None:
    bench = Bench(watching=False)
    bench.stands()
    bench.kube.answer("dry-run", {"metadata": {}})  # admitted
    error = await bench.refuse()
    assert error.reason is Reason.OPERATOR_FORBIDDEN
    assert "admissionPolicy.restrictOperator" in error.hint
    assert bench.methods == ["create", "dry-run"]
    assert bench.secret["data"] == {"password": "b2xk"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(ApiError(403, "Forbidden"), Reason.TARGET_REJECTED, id="quota-or-another-policy"),
        pytest.param(ApiError(422, "Invalid", fields=("data",)), Reason.TARGET_IMMUTABLE, id="field"),
        pytest.param(ApiError(403, "Forbidden", by_rbac=True), Reason.OPERATOR_FORBIDDEN, id="rbac"),
    ],
)
async def test_unseen_a_refusal_that_is_not_our_policys_proves_nothing(answer: ApiError, reason: Reason) -> None:
    bench = Bench(watching=False)
    bench.stands()
    bench.kube.answer("dry-run", answer)
    assert (await bench.refuse()).reason is reason
    assert bench.methods == ["create", "dry-run"]


async def test_unseen_a_foreign_secret_is_refused_by_the_policy() -> None:
    bench = Bench(watching=False)
    bench.stands(ownerReferences=[])
    bench.kube.answer("dry-run", POLICY)
    bench.kube.answer("replace", POLICY)
    assert (await bench.refuse()).reason is Reason.TARGET_NOT_OWNED
    assert bench.writes == []


async def test_unseen_the_policy_is_proven_anew_before_each_change() -> None:
    bench = Bench(watching=False)
    bench.stands()
    bench.kube.answer("dry-run", POLICY, {"metadata": {}})
    await bench.write()
    assert (await bench.refuse()).reason is Reason.OPERATOR_FORBIDDEN


# Refusals


@pytest.mark.parametrize("watching", [True, False])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(POLICY, Reason.TARGET_NOT_OWNED, id="our-policy"),
        pytest.param(ApiError(422, "Invalid", by_policy=True), Reason.TARGET_NOT_OWNED, id="our-policy-422"),
        pytest.param(ApiError(422, "Invalid"), Reason.TARGET_REJECTED, id="foreign-policy"),
        pytest.param(ApiError(403, "Forbidden"), Reason.TARGET_REJECTED, id="quota"),
        pytest.param(ApiError(403, "Forbidden", by_rbac=True), Reason.OPERATOR_FORBIDDEN, id="rbac"),
        pytest.param(ApiError(400, "BadRequest"), Reason.TARGET_REJECTED, id="webhook"),
        pytest.param(ApiError(413, "RequestEntityTooLarge"), Reason.TARGET_REJECTED, id="too-large"),
        pytest.param(ApiError(422, "Invalid", fields=("data[tls.crt]",)), Reason.TARGET_REJECTED, id="type-rules"),
        pytest.param(ApiError(422, "Invalid", fields=("type",)), Reason.TARGET_IMMUTABLE, id="type"),
        pytest.param(ApiError(422, "Invalid", fields=("data",)), Reason.TARGET_IMMUTABLE, id="data-of-immutable"),
        pytest.param(ApiError(422, "Invalid", fields=("immutable",)), Reason.TARGET_IMMUTABLE, id="immutable"),
    ],
)
async def test_a_refused_write_says_who_can_help(watching: bool, error: ApiError, reason: Reason) -> None:
    bench = Bench(watching=watching)
    bench.kube.answer("create", error)
    raised = await bench.refuse()
    assert raised.reason is reason
    assert "shop" in str(raised)
    assert bench.writes == []


@pytest.mark.parametrize(
    "error",
    [ApiError(404, "NotFound"), ApiError(422, "Invalid", fields=("metadata.namespace",))],
    ids=["namespace-gone", "namespace-terminating"],
)
async def test_in_a_namespace_that_goes_away_nothing_is_written(error: ApiError) -> None:
    bench = Bench()
    bench.kube.answer("create", error)
    with pytest.raises(TargetGone):
        await bench.write()


@pytest.mark.parametrize("status", [0, 408, 429, 500, 503])
async def test_a_passing_error_stays_what_it_is(status: int) -> None:
    bench = Bench()
    error = ApiError(status, "Whatever")
    bench.kube.answer("create", error)
    with pytest.raises(ApiError) as caught:
        await bench.write()
    assert caught.value is error


@pytest.mark.parametrize("status", [0, 403])
async def test_a_look_that_fails_tells_why(status: int) -> None:
    bench = Bench()
    bench.stands()
    bench.kube.answer("list", ApiError(status, "Whatever", by_rbac=status == 403))
    with pytest.raises(ApiError if status == 0 else StrongroomError):
        await bench.write()
    assert bench.methods == ["create", "list"]
