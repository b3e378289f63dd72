# SPDX-License-Identifier: Apache-2.0
"""The real server on loopback, the real front proxy certificates, and fakes of what is behind and beside it."""

import asyncio
import base64
import copy
import datetime
import json
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from strongroom.apiserver.server import ApiServer
from strongroom.config import ApiConfig
from strongroom.errors import Reason, StrongroomError
from strongroom.kms.service import Decrypted, DecryptItem, Encrypted, EncryptItem
from strongroom.kube import paths
from strongroom.kube.client import ApiError, PatchType
from strongroom.model import masterkey
from strongroom.model.ids import KeyId, KeyVersion
from strongroom.model.masterkey import MasterKey
from strongroom.model.plaintext import Plaintext
from strongroom.model.principal import Caller, Principal
from testbed.certificates import CertificateAuthority, CertificateFiles

NAMESPACE = "strongroom-system"
SERVER_NAME = f"strongroom.{NAMESPACE}.svc"
ALLOWED_NAME = "front-proxy-client"
KEY_ID = KeyId(uuid.UUID("5f0c1d3e-0000-4000-8000-000000000001"))
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n"
SECRET_PATH = f"/api/v1/namespaces/{NAMESPACE}/secrets/strongroom-serving-ca"
GROUP_VERSION = "/apis/crypto.strongroom.dev/v1alpha1"


class FakeKube:
    """The few objects the server reads and writes, with the API server's optimistic locking."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.failing: dict[str, ApiError] = {}
        self.before_write: Callable[[], None] = lambda: None

    def put(self, path: str, body: Mapping[str, Any]) -> None:
        version = int(self.objects.get(path, {}).get("metadata", {}).get("resourceVersion", "0")) + 1
        stored = copy.deepcopy(dict(body))
        stored["metadata"] = {**stored.get("metadata", {}), "resourceVersion": str(version)}
        self.objects[path] = stored

    async def get(self, path: str, **_: Any) -> dict[str, Any]:
        self._fail(path)
        if path not in self.objects:
            raise ApiError(404, "NotFound")
        return copy.deepcopy(self.objects[path])

    async def create(self, path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        path = f"{path}/{body['metadata']['name']}"
        self._write("create", path)
        if path in self.objects:
            raise ApiError(409, "AlreadyExists")
        self.put(path, body)
        return self.objects[path]

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._write("replace", path)
        if self.objects[path]["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict")
        self.put(path, body)
        return self.objects[path]

    async def patch(self, path: str, kind: PatchType, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        assert kind is PatchType.MERGE
        self._write("patch", path)
        merged = {**self.objects[path], "spec": {**self.objects[path].get("spec", {}), **body["spec"]}}
        self.put(path, merged)
        return self.objects[path]

    def _write(self, verb: str, path: str) -> None:
        self._fail(path)
        self.before_write()
        self.writes.append((verb, path))

    def _fail(self, path: str) -> None:
        if path in self.failing:
            raise self.failing[path]

    @property
    def ca_bundle(self) -> str:
        return base64.b64decode(self.objects[paths.API_SERVICE]["spec"].get("caBundle", "")).decode()


class FakeService:
    """Encrypts by a prefix. Remembers what it was asked; raises `error` if that is set; waits for `gate` if it is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Caller, str, list[Any], bool]] = []
        self.plaintexts: list[bytes] = []
        self.items: list[Plaintext] = []
        self.released: list[Plaintext] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.arrived = asyncio.Semaphore(0)
        """Released once for each operation asked for."""

    async def encrypt(
        self, caller: Caller, key_name: str, items: Sequence[EncryptItem], *, dry_run: bool = False
    ) -> Encrypted:
        self.asked.append(("encrypt", caller, key_name, [(item.binding, item.where) for item in items], dry_run))
        self.items = [item.plaintext for item in items]
        self.plaintexts = [item.plaintext.reveal() for item in items]
        await self._pass()
        blobs = [f"U1Ix{base64.b64encode(value).decode()}" for value in self.plaintexts]
        return Encrypted(KEY_ID, KeyVersion(3), [] if dry_run else blobs)

    async def decrypt(
        self, caller: Caller, key_name: str, items: Sequence[DecryptItem], *, dry_run: bool = False
    ) -> Decrypted:
        self.asked.append(
            ("decrypt", caller, key_name, [(item.binding, item.text, item.where) for item in items], dry_run)
        )
        await self._pass()
        self.released = [] if dry_run else [Plaintext(base64.b64decode(item.text[4:])) for item in items]
        return Decrypted([KeyVersion(2), KeyVersion(3)], self.released)

    async def _pass(self) -> None:
        self.arrived.release()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


class FakeKeys:
    """Two keys: `prod`, enabled; `new`, not yet created."""

    def __init__(self) -> None:
        self.keys = {"prod": _key("prod", created=True), "new": _key("new", created=False)}

    async def list(self) -> list[MasterKey]:
        return list(self.keys.values())

    async def get(self, name: str) -> MasterKey:
        if name not in self.keys:
            raise StrongroomError(Reason.KEY_NOT_FOUND, f"there is no CustomerMasterKey {name!r}")
        return self.keys[name]


class FakeAuthorizer:
    """Allows what `allowed` says, and remembers each question."""

    def __init__(self) -> None:
        self.allowed = True
        self.questions: list[tuple[Principal, str, str, str, str]] = []

    async def check(self, principal: Principal, *, verb: str, subresource: str, name: str, namespace: str) -> bool:
        self.questions.append((principal, verb, subresource, name, namespace))
        return self.allowed


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)

    def __call__(self) -> datetime.datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += datetime.timedelta(**delta)


class Harness:
    """One server, started on entry and stopped on exit; `front_proxy` is the CA of its callers."""

    def __init__(self, directory: Path, *, client_burst: int = 64) -> None:
        self.directory = directory
        self.front_proxy = CertificateAuthority("front-proxy-ca", directory)
        self.proxy_files = self.front_proxy.issue_client("proxy", ALLOWED_NAME)
        self.kube = FakeKube()
        self.kube.put(paths.API_SERVICE, {"metadata": {"name": "v1alpha1.crypto.strongroom.dev"}, "spec": {}})
        self.publish_front_proxy(self.front_proxy)
        self.service = FakeService()
        self.keys = FakeKeys()
        self.authorizer = FakeAuthorizer()
        self.clock = Clock()
        self.requests: list[tuple[str, int]] = []
        self.client_burst = client_burst
        self.server = self.new_server()
        self.started: list[ApiServer] = []

    def new_server(self) -> ApiServer:
        return ApiServer(
            ApiConfig(address="127.0.0.1", port=0, client_burst=self.client_burst),
            NAMESPACE,
            service=self.service,  # type: ignore[arg-type]
            keys=self.keys,  # type: ignore[arg-type]
            authorizer=self.authorizer,  # type: ignore[arg-type]
            kube=self.kube,  # type: ignore[arg-type]
            on_request=lambda verb, code: self.requests.append((verb, code)),
            clock=self.clock,
        )

    def publish_front_proxy(self, *authorities: CertificateAuthority, **changes: str | None) -> None:
        data: dict[str, str | None] = {
            "requestheader-client-ca-file": "".join(ca.certificate.read_text() for ca in authorities),
            "requestheader-allowed-names": json.dumps([ALLOWED_NAME]),
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }
        for field, value in changes.items():
            data["requestheader-" + field.replace("_", "-")] = value
        self.kube.put(
            paths.FRONT_PROXY_CONFIGURATION, {"data": {key: value for key, value in data.items() if value is not None}}
        )

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.started.append(self.server)
        await self.server.wait_until_serving()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.started:
            await server.stop()

    def client(self, files: CertificateFiles | None = None, *, anonymous: bool = False) -> "Client":
        """A client with the front proxy's certificate, another one, or none."""
        return Client(self, None if anonymous else files or self.proxy_files)


class Client:
    """Calls the server as kube-apiserver does: its certificate, the user in headers."""

    def __init__(self, harness: Harness, files: CertificateFiles | None) -> None:
        context = ssl.create_default_context(cadata=harness.kube.ca_bundle)
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=20)
        )
        self._base = f"https://127.0.0.1:{harness.server.port}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        raw: Any = None,
        headers: Sequence[tuple[str, str]] = (),
        user: str | None = "alice",
    ) -> "Answer":
        """One request; `body` is sent as JSON, `raw` as it is; so is the path."""
        identity = [("X-Remote-User", user), ("X-Remote-Group", "system:authenticated")] if user else []
        data = json.dumps(body).encode() if body is not None else raw
        content = [("Content-Type", "application/json")] if data is not None else []
        given = {name.lower() for name, _ in headers}
        sent = [*identity, *(pair for pair in content if pair[0].lower() not in given), *headers]
        async with self._session.request(
            method, URL(self._base + path, encoded=True), data=data, headers=sent, server_hostname=SERVER_NAME
        ) as response:
            return Answer(response.status, dict(response.headers), await response.read())


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def encrypt_request(**spec: Any) -> dict[str, Any]:
    """A correct EncryptRequest, but for what `spec` changes."""
    return _request("EncryptRequest", {"values": {"password": base64.b64encode(b"s3cret").decode()}}, spec)


def decrypt_request(**spec: Any) -> dict[str, Any]:
    """A correct DecryptRequest, but for what `spec` changes."""
    blob = f"U1Ix{base64.b64encode(b's3cret').decode()}"
    return _request("DecryptRequest", {"encryptedData": {"password": blob}}, spec)


def _request(kind: str, values: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    whole = {"scope": "Strict", "name": "db", **values, **spec}
    return {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": kind,
        "spec": {name: value for name, value in whole.items() if value is not None},
    }


def rsa_key(name: str) -> MasterKey:
    """A key that anyone can seal with."""
    version = {"version": 1, "state": "Primary", "createdAt": "2026-11-23T10:00:00+00:00"}
    return masterkey.parse(
        {
            "metadata": {"name": name, "uid": "2", "resourceVersion": "1", "generation": 1},
            "spec": {"hsm": "default", "keySpec": "RSA_3072", "state": "Enabled"},
            "status": {
                "keyId": str(KEY_ID),
                "versions": [version | {"algorithm": "RSA_OAEP_SHA1_AES_256_GCM"}],
                "publicKey": PUBLIC_KEY,
                "oaepHash": "sha1",
                "hsm": {"serial": "of no concern to a namespace"},
            },
        }
    )


def _key(name: str, *, created: bool) -> MasterKey:
    status = {
        "keyId": str(KEY_ID),
        "versions": [{"version": 3, "state": "Primary", "createdAt": "2026-11-23T10:00:00+00:00"}],
    }
    return masterkey.parse(
        {
            "metadata": {"name": name, "uid": "1", "resourceVersion": "1", "generation": 1},
            "spec": {"hsm": "default", "keySpec": "AES_256", "state": "Enabled"},
            "status": status if created else {},
        }
    )
