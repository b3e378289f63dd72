# SPDX-License-Identifier: Apache-2.0
"""The routes of `crypto.strongroom.dev/v1alpha1`: keys as a namespace sees them, and what can be done with them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from strongroom.apiserver import identity, views, wire
from strongroom.apiserver.jwe import Recipient
from strongroom.apiserver.status import HttpRefusal, InvalidField
from strongroom.apiserver.wire import DecryptRequest, EncryptRequest, FieldValidation, Spec
from strongroom.authz import Authorizer
from strongroom.errors import AccessDenied, Reason, StrongroomError
from strongroom.kms.keyreader import KeyReader
from strongroom.kms.service import CryptoService, DecryptItem, EncryptItem
from strongroom.model.labels import CRYPTO_API_VERSION, CRYPTO_GROUP, KEYS_RESOURCE
from strongroom.model.limits import MAX_KEY_NAME_LENGTH, MAX_REQUEST_BYTES
from strongroom.model.principal import Caller, Permission, Principal

PRINCIPAL: Final = web.RequestKey("principal", Principal)
"""Who calls; put there before any handler below runs."""

_KEYS: Final = f"/apis/{CRYPTO_API_VERSION}/namespaces/{{namespace}}/{KEYS_RESOURCE}"
_ALL_NAMESPACES: Final = f"/apis/{CRYPTO_API_VERSION}/{KEYS_RESOURCE}"
_PLACE_WAIT_SECONDS: Final = 5.0
"""How long a request waits for its turn before it is told to come again; well below kube-apiserver's 60 s."""
_BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive, so that slow senders do not hold the places of others."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Resources:
    """The handlers. At most `places` requests are served at a time; the others wait, then get Throttled."""

    def __init__(self, *, service: CryptoService, keys: KeyReader, authorizer: Authorizer, places: int) -> None:
        self._service = service
        self._keys = keys
        self._authorizer = authorizer
        self._places = asyncio.Semaphore(places)

    def routes(self) -> list[web.RouteDef]:
        """The routes; their names are the verbs that requests are counted under."""
        return [
            web.get(_KEYS, self._in_turn(self._list), name="list", allow_head=False),
            web.get(f"{_KEYS}/{{name}}", self._in_turn(self._get), name="get", allow_head=False),
            web.post(f"{_KEYS}/{{name}}/encrypt", self._in_turn(self._encrypt), name="encrypt"),
            web.post(f"{_KEYS}/{{name}}/decrypt", self._in_turn(self._decrypt), name="decrypt"),
            web.get(_ALL_NAMESPACES, _refuse_all_namespaces, name="list-all", allow_head=False),
        ]

    def _in_turn(self, handler: _Handler) -> _Handler:
        async def wait_then_handle(request: web.Request) -> web.StreamResponse:
            async with self._place():
                return await handler(request)

        return wait_then_handle

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_PLACE_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise StrongroomError(
                Reason.THROTTLED, "too many requests are under way", hint="Repeat the request later"
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def _list(self, request: web.Request) -> web.Response:
        namespace = _namespace(request)
        form = views.form(request.headers.get("Accept", ""))
        if request.query.get("watch") in ("1", "true"):
            raise HttpRefusal(405, "keys are not watched here; watch the CustomerMasterKeys", allow=["GET"])
        for selector in ("labelSelector", "fieldSelector"):
            if request.query.get(selector):
                raise InvalidField(selector, "keys are not selected by it; list them all, or get one by name")
        await self._require(request, "list", name="", namespace=namespace)
        found = sorted(await self._keys.list(), key=lambda key: key.name)
        match form:
            case views.Form.OBJECT:
                return _json(200, views.key_list(found, namespace))
            case views.Form.TABLE:
                return _json(200, views.table(found, namespace, include_object=_include_object(request)))

    async def _get(self, request: web.Request) -> web.Response:
        namespace, name = _namespace(request), _key_name(request)
        form = views.form(request.headers.get("Accept", ""))
        await self._require(request, "get", name=name, namespace=namespace)
        found = await self._keys.get(name)
        match form:
            case views.Form.OBJECT:
                return _json(200, views.key(found, namespace))
            case views.Form.TABLE:
                return _json(200, views.table([found], namespace, include_object=_include_object(request)))

    async def _encrypt(self, request: web.Request) -> web.Response:
        namespace, name = _namespace(request), _key_name(request)
        dry_run = _dry_run(request)
        body, warnings = wire.decode(
            await _read_body(request), EncryptRequest, namespace=namespace, validation=_field_validation(request)
        )
        bindings = wire.bindings(body.spec, body.spec.values, field="spec.values", namespace=namespace)
        items: list[EncryptItem] = []
        try:
            for data_key, binding in bindings.items():
                where = f"spec.values[{data_key}]"
                value = wire.plaintext(body.spec.values[data_key], where=where)
                items.append(EncryptItem(binding, value, where))
            caller = _caller(request, Permission.ENCRYPT, namespace)
            encrypted = await self._service.encrypt(caller, name, items, dry_run=dry_run)
        finally:
            for item in items:
                item.plaintext.wipe()
        status = {
            "keyId": str(encrypted.key_id),
            "keyVersion": encrypted.version,
            "encryptedData": dict(zip(bindings, encrypted.blobs, strict=not dry_run)),
        }
        return _created(body.kind, name, namespace, body.spec, None if dry_run else status, warnings)

    async def _decrypt(self, request: web.Request) -> web.Response:
        namespace, name = _namespace(request), _key_name(request)
        dry_run = _dry_run(request)
        body, warnings = wire.decode(
            await _read_body(request), DecryptRequest, namespace=namespace, validation=_field_validation(request)
        )
        blobs = body.spec.encrypted_data
        bindings = wire.bindings(body.spec, blobs, field="spec.encryptedData", namespace=namespace)
        recipient = Recipient(body.spec.recipient_public_key) if body.spec.recipient_public_key else None
        items = [
            DecryptItem(binding, blobs[data_key], f"spec.encryptedData[{data_key}]")
            for data_key, binding in bindings.items()
        ]
        caller = _caller(request, Permission.DECRYPT, namespace)
        decrypted = await self._service.decrypt(caller, name, items, dry_run=dry_run)
        if dry_run:
            return _created(body.kind, name, namespace, body.spec, None, warnings)
        try:
            status: dict[str, Any] = {"keyVersions": decrypted.versions}
            values = zip(bindings, decrypted.plaintexts, strict=True)
            if recipient is None:
                status["values"] = {key: base64.b64encode(value.reveal()).decode() for key, value in values}
            else:
                status["encryptedValues"] = {key: recipient.wrap(value) for key, value in values}
            return _created(body.kind, name, namespace, body.spec, status, warnings)
        finally:
            for plaintext in decrypted.plaintexts:
                plaintext.wipe()

    async def _require(self, request: web.Request, verb: str, *, name: str, namespace: str) -> None:
        """kube-apiserver has asked RBAC before; asked again, so that this does not rest on its routing alone."""
        principal = request[PRINCIPAL]
        if not await self._authorizer.check(principal, verb=verb, subresource="", name=name, namespace=namespace):
            what = f"{KEYS_RESOURCE} {name!r}" if name else KEYS_RESOURCE
            raise AccessDenied(
                who=principal.username, may_not=f"{verb} {what} of {CRYPTO_GROUP} in namespace {namespace!r}"
            )


async def _refuse_all_namespaces(_: web.Request) -> web.Response:
    raise HttpRefusal(405, "keys look the same from every namespace; name one, such as --namespace default")


def _namespace(request: web.Request) -> str:
    namespace = request.match_info["namespace"]
    if not wire.is_label(namespace):
        raise InvalidField("namespace", "is not the name of a namespace")
    return namespace


def _key_name(request: web.Request) -> str:
    name = request.match_info["name"]
    if not wire.is_name(name, MAX_KEY_NAME_LENGTH):
        raise InvalidField("name", "is not the name of a key")
    return name


def _caller(request: web.Request, permission: Permission, namespace: str) -> Caller:
    return Caller(request[PRINCIPAL], permission, namespace, identity.source(request))


def _dry_run(request: web.Request) -> bool:
    """`dryRun=All`, Kubernetes' only word for it."""
    values = request.query.getall("dryRun", [])
    if any(value != "All" for value in values):
        raise InvalidField("dryRun", "must be All", reason="FieldValueNotSupported")
    return bool(values)


def _field_validation(request: web.Request) -> FieldValidation:
    """`fieldValidation`; Warn if it is not given, as everywhere in Kubernetes."""
    value = request.query.get("fieldValidation") or FieldValidation.WARN.value
    if value not in FieldValidation.__members__.values():
        raise InvalidField(
            "fieldValidation", f"must be one of {', '.join(FieldValidation)}", reason="FieldValueNotSupported"
        )
    return FieldValidation(value)


def _include_object(request: web.Request) -> str:
    return request.query.get("includeObject", "")


async def _read_body(request: web.Request) -> bytes:
    """The body, if it is JSON by its header, not compressed, and of a size and speed that can be taken."""
    if "Content-Type" in request.headers and request.content_type != "application/json":
        raise HttpRefusal(415, "only application/json is understood")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise HttpRefusal(415, "compressed bodies are not understood")
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        raise HttpRefusal(413, f"the body is larger than {MAX_REQUEST_BYTES} bytes")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise HttpRefusal(408, f"the body did not arrive within {_BODY_SECONDS:.0f} s") from None
    except (web.RequestPayloadError, OSError):
        raise HttpRefusal(400, "the body was cut off") from None


def _created(
    kind: str, name: str, namespace: str, spec: Spec, status: dict[str, Any] | None, warnings: list[str]
) -> web.Response:
    """The request as an object, with the result in place of the values that were sent."""
    answer: dict[str, Any] = {
        "apiVersion": CRYPTO_API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"scope": spec.scope},
    }
    if spec.name:
        answer["spec"]["name"] = spec.name
    if spec.encryption_context:
        answer["spec"]["encryptionContext"] = spec.encryption_context
    if status is not None:
        answer["status"] = status
    response = _json(201, answer)
    for warning in warnings:
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def _json(status: int, document: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(document).encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
