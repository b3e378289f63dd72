# SPDX-License-Identifier: Apache-2.0
"""What the unit tests put in the place of an API server and a clock. Each fails on what it does not expect."""

import asyncio
import copy
import selectors
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from strongroom.kube.client import ApiError, PatchType
from strongroom.model import encryptedsecret, masterkey
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.masterkey import MasterKey

KEY_ID = uuid.UUID("5f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5")
OTHER_KEY_ID = uuid.UUID("0a1b2c3d-4e5f-4a6b-9c8d-7e6f5a4b3c2d")
CLUSTER = "0123456789abcdef"
CREATED_AT = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)

Handler = Callable[[str, str, Any], Any]


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeKube:
    """An API server with one object a path: create, get, list, replace and patch as the operator uses them.

    `answers` holds, by method, what is raised or returned instead, first in first out. `gate`, if set, holds every
    request back until it is opened. `meanwhile`, by method, is called once before the request is answered: what
    someone else does at that moment. Who owns the fields of a Secret is kept as in managedFields.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: dict[str, list[ApiError | dict[str, Any]]] = {}
        self.gate: asyncio.Event | None = None
        self.meanwhile: dict[str, Callable[[], None]] = {}
        self._version = 0

    def answer(self, method: str, *answers: ApiError | dict[str, Any]) -> None:
        self.answers.setdefault(method, []).extend(answers)

    def bodies(self, method: str) -> list[Any]:
        return [body for called, _, body in self.calls if called == method]

    async def get(self, path: str, *, accept: str | None = None, params: Any = None) -> dict[str, Any]:
        if params is None:
            return self._answer(await self._call("get", path, None, self._get), accept)
        (selector,) = params.values()
        assert params == {"fieldSelector": selector}
        found = await self._call("list", path, selector, self._list)
        return {"items": [self._answer(item, accept) for item in found["items"]]}

    async def create(self, path: str, body: Any, *, accept: str | None = None, dry_run: bool = False) -> dict[str, Any]:
        method, act = ("dry-run", self._dry_run) if dry_run else ("create", self._create)
        return self._answer(await self._call(method, path, body, act), accept)

    async def replace(self, path: str, body: Any, *, accept: str | None = None) -> dict[str, Any]:
        return self._answer(await self._call("replace", path, body, self._replace), accept)

    async def patch(self, path: str, kind: Any, body: Any, *, accept: str | None = None) -> dict[str, Any]:
        act = self._patch_json if kind is PatchType.JSON else self._patch
        return self._answer(await self._call("patch", path, body, act), accept)

    async def list_all(
        self, path: str, *, accept: str | None = None, label_selector: str | None = None
    ) -> AsyncIterator[tuple[list[dict[str, Any]], int]]:
        page = await self._call("list", path, label_selector, self._list)
        yield [self._answer(item, accept) for item in page["items"]], self._version

    async def _call(self, method: str, path: str, body: Any, act: Callable[[str, Any], Any]) -> dict[str, Any]:
        self.calls.append((method, path, copy.deepcopy(body)))
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if method in self.meanwhile:
            self.meanwhile.pop(method)()
        if self.answers.get(method):
            answer = self.answers[method].pop(0)
            if isinstance(answer, ApiError):
                raise answer
            return answer
        return copy.deepcopy(act(path, copy.deepcopy(body)))  # type: ignore[no-any-return]

    def _answer(self, item: dict[str, Any], accept: str | None) -> dict[str, Any]:
        return {"metadata": item["metadata"]} if accept and "metadata" in item else item

    def _list(self, path: str, selector: str | None) -> Any:
        """Of the objects in the collection, or of that kind in all namespaces, those with the selected name."""
        name = selector.removeprefix("metadata.name=") if selector and "=true" not in selector else None
        kind = path.rpartition("/")[2]
        found = [
            body
            for stored, body in self.objects.items()
            if stored.rpartition("/")[0].endswith("/" + kind) and name in (None, body["metadata"]["name"])
        ]
        return {"items": found}

    def _dry_run(self, path: str, body: Any) -> Any:
        raise AssertionError(f"unexpected dry run of POST to {path}")

    def _get(self, path: str, _: Any) -> Any:
        if path not in self.objects:
            raise ApiError(404, "NotFound")
        return self.objects[path]

    def _create(self, path: str, body: Any) -> Any:
        if "metadata" not in body:  # a review: nothing is stored
            raise AssertionError(f"unexpected POST to {path}")
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            raise ApiError(409, "AlreadyExists")
        return self._store(path, body)

    def _replace(self, path: str, body: Any) -> Any:
        known = self._get(path, None)
        for precondition in ("resourceVersion", "uid"):
            if body["metadata"].get(precondition, known["metadata"].get(precondition)) != known["metadata"].get(
                precondition
            ):
                raise ApiError(409, "Conflict")
        identity = {field: known["metadata"][field] for field in ("uid", "generation") if field in known["metadata"]}
        return self._store(path, {**body, "metadata": identity | body["metadata"]})

    def _patch_json(self, path: str, body: Any) -> Any:
        """Tests, then one `add` of the status."""
        path = path.removesuffix("/status")
        known = self._get(path, None)
        *tests, change = body
        for test in tests:
            field = test["path"].removeprefix("/metadata/")
            if known["metadata"].get(field) != test["value"]:
                raise ApiError(422, "Invalid", test_failed=True)
        assert (change["op"], change["path"]) == ("add", "/status")
        return self._store(path, known | {"status": change["value"]})

    def _patch(self, path: str, body: Any) -> Any:
        known = self._get(path, None)
        return self._store(path, known | body)  # a merge patch of top-level fields is all that is used here

    def _store(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = body["metadata"]
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        metadata.setdefault("generation", 1)
        if body.get("kind") == "Secret":
            metadata["managedFields"] = _owners_after(body, self.objects.get(path))
        self.objects[path] = body
        return body


_Path = tuple[str, ...]


def owned_fields(body: Mapping[str, Any], manager: str = "strongroom") -> dict[str, Any]:
    """The managedFields entry that a POST of a Secret leaves."""
    return _entry(manager, _fields(body))


def _fields(body: Mapping[str, Any]) -> dict[_Path, Any]:
    """The fields of a Secret that have an owner, and their values."""
    fields: dict[_Path, Any] = {("f:type",): body.get("type")}
    fields |= {("f:data", f"f:{key}"): value for key, value in body.get("data", {}).items()}
    for kind in ("labels", "annotations"):
        for key, value in body["metadata"].get(kind, {}).items():
            fields["f:metadata", f"f:{kind}", f"f:{key}"] = value
    return fields


def _entry(manager: str, fields: Iterable[_Path]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path in fields:
        inner = nested
        for step in path:
            inner = inner.setdefault(step, {})
    return {"manager": manager, "operation": "Update", "fieldsV1": nested}


def _owns(entry: Mapping[str, Any], path: _Path) -> bool:
    inner = entry["fieldsV1"]
    for step in path:
        if step not in inner:
            return False
        inner = inner[step]
    return True


def _owners_after(body: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """managedFields after our write: what we changed is ours, what stayed as it was stays whoever's it was."""
    if body["metadata"].get("managedFields"):
        return list(body["metadata"]["managedFields"])
    now, was = _fields(body), _fields(before) if before else {}
    entries = before["metadata"]["managedFields"] if before else [_entry("strongroom", [])]
    changed = [path for path in now if path not in was or now[path] != was[path]]
    kept = {entry["manager"]: [path for path in now if path not in changed and _owns(entry, path)] for entry in entries}
    kept["strongroom"] = kept.get("strongroom", []) + changed
    return [_entry(manager, paths) for manager, paths in kept.items() if paths]


class ReviewKube(FakeKube):
    """Answers SubjectAccessReviews by `allowed`."""

    def __init__(self, allowed: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        super().__init__()
        self.allowed = allowed

    def _create(self, path: str, body: Any) -> Any:
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return {"status": {"allowed": self.allowed(body["spec"])}}


async def settle(turns: int = 50) -> None:
    """Let everything run that can run now."""
    for _ in range(turns):
        await asyncio.sleep(0)


def master_key(**changes: Any) -> MasterKey:
    """An enabled key with one version; keyword arguments go to `master_key_body`."""
    return masterkey.parse(master_key_body(**changes))


def master_key_body(
    name: str = "prod",
    *,
    state: str = "Enabled",
    key_spec: str = "AES_256",
    hsm: str = "default",
    key_id: uuid.UUID | None = KEY_ID,
    versions: Mapping[int, str] | None = None,
    algorithm: str | None = "AES_256_GCM",
    public_key: str = "",
    requested: uuid.UUID | None = None,
    pending: tuple[int, uuid.UUID] | None = None,
    shared: bool = False,
    resource_version: int = 1,
) -> dict[str, Any]:
    spec: dict[str, Any] = {"hsm": hsm, "keySpec": key_spec, "state": state}
    if requested:
        spec["keyId"] = str(requested)
    status: dict[str, Any] = {"observedGeneration": 1}
    if key_id:
        status["keyId"] = str(key_id)
        status["versions"] = [
            {"version": version, "state": word, "createdAt": "2026-11-23T10:00:00Z"}
            | ({"algorithm": algorithm} if algorithm is not None else {})
            for version, word in (versions if versions is not None else {1: "Primary"}).items()
        ]
    if public_key:
        status |= {"publicKey": public_key, "oaepHash": "sha1"}
    if pending:
        status["pendingVersion"] = {"version": pending[0], "keyId": str(pending[1])}
    if shared:
        status["shared"] = True
    metadata = {"name": name, "uid": "cmk-uid", "resourceVersion": str(resource_version), "generation": 1}
    return {"metadata": metadata, "spec": spec, "status": status}


def encrypted_secret(**changes: Any) -> EncryptedSecret:
    """Keyword arguments go to `encrypted_secret_body`."""
    return encryptedsecret.parse(encrypted_secret_body(**changes))


def encrypted_secret_body(
    name: str = "db",
    namespace: str = "shop",
    *,
    resource_version: int = 1,
    generation: int = 1,
    deleting: bool = False,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "namespace": namespace,
        "name": name,
        "uid": f"uid-of-{name}",
        "resourceVersion": str(resource_version),
        "generation": generation,
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    usual = {"keyRef": {"name": "prod"}, "scope": "Strict", "encryptedData": {"password": "U1Ix"}}
    return {"metadata": metadata, "spec": usual | spec, "status": dict(status or {})}


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: it tells how long it would have waited."""

    def __init__(self, waited: Callable[[float], None]) -> None:
        super().__init__()
        self._waited = waited

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits and nothing is left to happen"
        self._waited(timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self._wait))

    def time(self) -> float:
        return self.now

    def _wait(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end in no time, however long its sleeps are."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def loop_time() -> float:
    """What `time.monotonic` says under virtual time."""
    return asyncio.get_running_loop().time()
