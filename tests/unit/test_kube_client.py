# SPDX-License-Identifier: Apache-2.0
"""Against a server on loopback that answers as told, with bodies as kube-apiserver and webhooks write them."""

import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from strongroom.kube.client import METADATA_ONLY, ApiError, KubeClient, PatchType
from strongroom.kube.credentials import Credentials

POLICY = (
    "ValidatingAdmissionPolicy 'strongroom-operator-secrets' with binding 'strongroom-operator-secrets' denied request"
)


def status(code: int, reason: str, message: str = "canary", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message} | details


class Server:
    """Answers every request alike and remembers it."""

    def __init__(self, code: int = 200, body: Any = None, **headers: str) -> None:
        self.code, self.body, self.headers = code, body if body is not None else {}, headers
        self.requests: list[tuple[str, str, dict[str, str], str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.text()))
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return web.Response(status=self.code, body=content, headers=self.headers)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[KubeClient]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        async with TestServer(app, host="127.0.0.1") as server:
            identity = Credentials(str(server.make_url("")).rstrip("/"), ssl.create_default_context(), "token", None)
            client = KubeClient(identity, connections=1)
            try:
                yield client
            finally:
                await client.close()

    async def refuse(self) -> ApiError:
        async with self.client() as client:
            with pytest.raises(ApiError) as caught:
                await client.patch("/x", PatchType.JSON, [])
            return caught.value


@pytest.mark.parametrize(
    ("code", "body", "test_failed"),
    [
        pytest.param(
            422, status(422, "Invalid", "the request is invalid", details={}), True, id="test-of-a-json-patch"
        ),
        pytest.param(422, status(422, "Invalid", "the request is invalid"), True, id="without-details"),
        pytest.param(
            422, status(422, "Invalid", details={"causes": [{"field": "status.state"}]}), False, id="schema-refused"
        ),
        pytest.param(
            422,
            status(422, "Invalid", f"x is forbidden: {POLICY}: no", details={"causes": [{"message": "no"}]}),
            False,
            id="policy-refused-with-causes-without-field",
        ),
        pytest.param(
            422,
            status(422, "Invalid", 'admission webhook "x" denied the request: no', details={}),
            False,
            id="webhook-refused-without-causes",
        ),
        pytest.param(409, status(409, "Conflict", details={}), False, id="conflict"),
        pytest.param(400, status(400, "BadRequest", details={}), False, id="malformed-patch"),
    ],
)
async def test_a_test_that_did_not_hold_is_told_from_every_other_refusal(
    code: int, body: dict[str, Any], test_failed: bool
) -> None:
    assert (await Server(code, body).refuse()).test_failed is test_failed


@pytest.mark.parametrize(
    ("message", "by_policy", "by_rbac"),
    [
        pytest.param(f'secrets "db" is forbidden: {POLICY}: not ours', True, False, id="our-policy"),
        pytest.param(
            "secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'no-secrets' with binding 'x' denied request: "
            "strongroom-operator-secrets",
            False,
            False,
            id="another-policy-that-names-ours",
        ),
        pytest.param(
            'secrets is forbidden: User "system:serviceaccount:strongroom:strongroom" cannot create resource',
            False,
            True,
            id="rbac",
        ),
        pytest.param('secrets "db" is forbidden: exceeded quota: small', False, False, id="quota"),
    ],
)
async def test_who_refused_is_told_by_whom_the_api_server_names(message: str, by_policy: bool, by_rbac: bool) -> None:
    error = await Server(403, status(403, "Forbidden", message)).refuse()
    assert (error.by_policy, error.by_rbac) == (by_policy, by_rbac)
    assert message not in str(error)
    assert message not in repr(error)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("1", 1.0),
        ("60", 60.0),
        ("61", 60.0),
        ("9" * 400, 60.0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
    ],
)
async def test_the_api_server_may_ask_for_a_pause_of_at_most_a_minute(retry_after: str, seconds: float | None) -> None:
    error = await Server(429, status(429, "TooManyRequests"), **{"Retry-After": retry_after}).refuse()
    assert error.retry_after == seconds
    assert error.transient


@pytest.mark.parametrize(
    "text", ["the password is hunter2", "hunter2!", "é", "a" * 65, "two\nlines", "", " Invalid"], ids=repr
)
async def test_a_reason_that_a_webhook_wrote_freely_is_dropped(text: str) -> None:
    error = await Server(400, status(400, text)).refuse()
    assert error.reason == "Bad Request"
    assert (await Server(400, status(400, "Invalid")).refuse()).reason == "Invalid"


async def test_a_field_that_is_no_path_is_dropped() -> None:
    fields = ["data[tls.crt]", "metadata.annotations", "hunter2 is the password", "é", "x" * 254, "", "a\nb"]
    causes = [{"field": field, "message": "canary"} for field in fields]
    error = await Server(422, status(422, "Invalid", details={"causes": causes})).refuse()
    assert error.fields == ("data[tls.crt]", "metadata.annotations")
    assert str(error) == "the API server answered 422 Invalid (data[tls.crt], metadata.annotations)"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>canary</html>", b"[]", b'{"reason": 7}', b'{"details": "canary"}', b"\xff"],
    ids=["empty", "html", "list", "reason-a-number", "details-a-text", "no-text"],
)
async def test_an_error_whose_body_is_no_status_is_an_error_still(body: bytes) -> None:
    error = await Server(502, body).refuse()
    assert (error.status, error.reason, error.fields) == (502, "Bad Gateway", ())
    assert error.transient


async def test_an_answer_that_is_no_json_is_no_answer() -> None:
    error = await Server(200, b"canary").refuse()
    assert (error.status, error.reason) == (0, "InvalidAnswer")


async def test_a_server_that_does_not_answer_is_no_answer() -> None:
    identity = Credentials("http://127.0.0.1:1", ssl.create_default_context(), "", None)
    client = KubeClient(identity, connections=1)
    with pytest.raises(ApiError) as caught:
        await client.get("/x")
    await client.close()
    assert (caught.value.status, caught.value.transient) == (0, True)


@pytest.mark.parametrize("transient", [True, False])
async def test_what_may_pass_later_by_itself_is_told_by_the_code(transient: bool) -> None:
    for code in (408, 429, 500, 502, 503, 504) if transient else (400, 401, 403, 404, 405, 409, 410, 413, 415, 422):
        assert (await Server(code, status(code, "Whatever")).refuse()).transient is transient, code


async def test_every_write_is_our_field_managers_and_a_dry_run_says_so() -> None:
    server = Server()
    async with server.client() as client:
        await client.create("/c", {"a": 1}, accept=METADATA_ONLY)
        await client.create("/c", {}, dry_run=True)
        await client.replace("/c/x", {}, accept=METADATA_ONLY)
        await client.patch("/c/x", PatchType.MERGE, {})
    sent = [(method, path) for method, path, _, _ in server.requests]
    assert sent == [
        ("POST", "/c?fieldManager=strongroom"),
        ("POST", "/c?fieldManager=strongroom&dryRun=All"),
        ("PUT", "/c/x?fieldManager=strongroom"),
        ("PATCH", "/c/x?fieldManager=strongroom"),
    ]
    headers = [headers for _, _, headers, _ in server.requests]
    assert [header["Accept"] for header in headers] == [METADATA_ONLY, "application/json"] * 2
    assert headers[3]["Content-Type"] == "application/merge-patch+json"
    assert {header["Authorization"] for header in headers} == {"Bearer token"}
    assert server.requests[0][3] == '{"a":1}'
