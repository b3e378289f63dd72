# SPDX-License-Identifier: Apache-2.0
"""Who may speak to the server, over real TLS with real certificates."""

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import pytest

from strongroom.kube import paths
from testbed.certificates import CertificateAuthority
from tests.apiserver.harness import ALLOWED_NAME, GROUP_VERSION, SERVER_NAME, Client, Harness, encrypt_request

KEYS = f"{GROUP_VERSION}/namespaces/shop/keys"
ENCRYPT = f"{KEYS}/prod/encrypt"
PATHS = (KEYS, "/apis", GROUP_VERSION, "/openapi/v3", "/healthz", "/livez", "/readyz", "/nowhere")


@pytest.mark.parametrize("path", PATHS)
async def test_without_certificate_nobody_gets_through_the_handshake(api: Harness, path: str) -> None:
    async with api.client(anonymous=True) as anonymous:
        with pytest.raises(aiohttp.ClientError):
            await anonymous("GET", path, headers=[("X-Remote-Group", "system:masters")])

    assert api.requests == []


async def test_certificate_of_the_right_ca_with_another_name_is_refused(api: Harness) -> None:
    async with api.client(api.front_proxy.issue_client("other", "someone-else")) as other:
        assert (await other("GET", KEYS)).status == 401
        assert (await other("POST", ENCRYPT, body=encrypt_request())).status == 401
    assert api.service.asked == []


async def test_certificate_of_another_ca_does_not_get_through_the_handshake(api: Harness, tmp_path: Path) -> None:
    stranger = CertificateAuthority("stranger-ca", tmp_path).issue_client("stranger", ALLOWED_NAME)

    async with api.client(stranger) as client:
        with pytest.raises(aiohttp.ClientError):
            await client("GET", KEYS)


@pytest.mark.parametrize(
    ("user", "headers"),
    [
        pytest.param(None, [], id="missing"),
        pytest.param("", [("X-Remote-User", "")], id="empty"),
        pytest.param("alice", [("X-Remote-User", "bob")], id="two"),
        pytest.param(None, [("X-Remote-Group", "system:masters")], id="group-alone"),
        pytest.param("alice", [("X-Remote-Extra-%FF", "x")], id="extra-not-utf-8"),
    ],
)
async def test_without_exactly_one_user_there_is_no_identity(
    client: Client, user: str | None, headers: list[tuple[str, str]]
) -> None:
    assert (await client("GET", KEYS, user=user, headers=headers)).status == 401


async def test_identity_reaches_the_operation_whole(api: Harness, client: Client) -> None:
    headers = [
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Uid", "u-1"),
        ("X-Remote-Extra-Example.com%2fRoles", "admin"),
        ("X-Remote-Extra-Example.com%2fRoles", "auditor"),
        ("X-Remote-Extra-Scopes", "a"),
        ("X-Forwarded-For", "203.0.113.9, 198.51.100.7"),
    ]

    await client("POST", ENCRYPT, body=encrypt_request(), headers=headers, user="jörg")

    caller = api.service.asked[0][1]
    assert caller.principal.username == "jörg"
    assert caller.principal.groups == ("system:authenticated", "system:masters")
    assert caller.principal.uid == "u-1"
    assert caller.principal.extra == (("example.com/roles", ("admin", "auditor")), ("scopes", ("a",)))
    assert caller.source.address == "198.51.100.7"


async def test_masters_by_header_are_asked_for_like_everyone(api: Harness, client: Client) -> None:
    api.authorizer.allowed = False

    assert (await client("GET", KEYS, headers=[("X-Remote-Group", "system:masters")])).status == 403


async def test_a_user_may_be_in_a_thousand_groups(api: Harness, client: Client) -> None:
    groups = [("X-Remote-Group", f"department-{n}") for n in range(1000)]

    await client("POST", ENCRYPT, body=encrypt_request(), headers=groups)

    assert len(api.service.asked[0][1].principal.groups) == 1001


async def test_claims_are_cut_to_a_length_and_forged_addresses_are_not_believed(api: Harness, client: Client) -> None:
    headers = [("Audit-ID", "x" * 4000), ("User-Agent", "y" * 4000), ("X-Forwarded-For", "not an address")]

    await client("POST", ENCRYPT, body=encrypt_request(), headers=headers)

    source = api.service.asked[0][1].source
    assert (len(source.audit_id), len(source.user_agent), source.address) == (256, 256, "127.0.0.1")


async def test_headers_that_the_front_proxy_does_not_set_are_not_believed(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.publish_front_proxy(
        harness.front_proxy,
        username_headers='["X-User", "X-Remote-User"]',
        group_headers='["X-Group", "X-Remote-Group"]',
        uid_headers=None,
    )
    async with harness, harness.client() as client:
        forged = [("X-User", "root"), ("X-Group", "system:masters"), ("X-Remote-Uid", "0")]
        await client("POST", ENCRYPT, body=encrypt_request(), headers=forged)

    principal = harness.service.asked[0][1].principal
    assert (principal.username, principal.groups, principal.uid) == ("alice", ("system:authenticated",), "")


UNUSABLE = [
    pytest.param({"allowed_names": "[]"}, "--requestheader-allowed-names", id="no-names"),
    pytest.param({"allowed_names": '[""]'}, "--requestheader-allowed-names", id="empty-name"),
    pytest.param({"allowed_names": None}, "--requestheader-allowed-names", id="names-absent"),
    pytest.param({"allowed_names": "front-proxy-client"}, "allowed-names is not a JSON list", id="names-no-json"),
    pytest.param({"allowed_names": '"front-proxy-client"'}, "allowed-names is not a JSON list", id="names-no-list"),
    pytest.param({"client_ca_file": None}, "--requestheader-client-ca-file", id="no-ca"),
    pytest.param({"client_ca_file": "garbage"}, "no certificates in PEM", id="ca-no-pem"),
    pytest.param({"username_headers": '["X-User"]'}, "X-Remote-User", id="other-user-header"),
]


@pytest.mark.parametrize(("changes", "says"), UNUSABLE)
async def test_unusable_front_proxy_configuration_refuses_to_serve_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, str | None], says: str
) -> None:
    harness = Harness(tmp_path)
    harness.publish_front_proxy(harness.front_proxy, **changes)
    await harness.server.start()
    try:
        await harness.server.upkeep()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", harness.server.port)
        assert says in caplog.text

        harness.publish_front_proxy(harness.front_proxy)
        await harness.server.upkeep()
        async with harness.client() as client:
            assert (await client("GET", KEYS)).status == 200
    finally:
        await harness.server.stop()


@pytest.mark.parametrize("changes", [{"allowed_names": "[]"}, {"client_ca_file": None}])
async def test_what_was_read_before_stays_in_force(
    api: Harness, client: Client, changes: dict[str, str | None]
) -> None:
    api.publish_front_proxy(api.front_proxy, **changes)
    await api.server.upkeep()
    assert (await client("GET", KEYS)).status == 200

    del api.kube.objects[paths.FRONT_PROXY_CONFIGURATION]
    await api.server.upkeep()
    assert (await client("GET", KEYS)).status == 200
    async with api.client(api.front_proxy.issue_client("other", "someone-else")) as other:
        assert (await other("GET", KEYS)).status == 401


async def test_a_name_that_is_no_longer_allowed_is_refused_on_open_connections_too(
    api: Harness, client: Client
) -> None:
    assert (await client("GET", KEYS)).status == 200
    api.publish_front_proxy(api.front_proxy, allowed_names=json.dumps(["renamed"]))
    await api.server.upkeep()

    assert (await client("GET", KEYS)).status == 401


async def test_front_proxy_ca_rotates_without_a_lost_request(api: Harness) -> None:
    """kube-apiserver publishes {old, new}, moves to the new certificate, drops the old CA; requests never stop."""
    new_ca = CertificateAuthority("front-proxy-ca-2", api.directory)
    new_files = new_ca.issue_client("proxy-2", ALLOWED_NAME)
    statuses: list[int] = []
    answers = asyncio.Semaphore(0)
    old_done, new_done = asyncio.Event(), asyncio.Event()

    async def call_until(done: asyncio.Event, client: Client) -> None:
        while not done.is_set():
            statuses.append((await client("POST", ENCRYPT, body=encrypt_request())).status)
            answers.release()

    async with api.client() as old, api.client(new_files) as new:
        old_calls = asyncio.gather(*(call_until(old_done, old) for _ in range(4)))
        await _more(answers, 20)
        api.publish_front_proxy(api.front_proxy, new_ca)
        await api.server.upkeep()
        new_calls = asyncio.gather(*(call_until(new_done, new) for _ in range(4)))
        await _more(answers, 60)
        old_done.set()
        await old_calls
        api.publish_front_proxy(new_ca)
        await api.server.upkeep()
        await _more(answers, 60)
        new_done.set()
        await new_calls
        assert set(statuses) == {201}

    async with api.client() as old_again:
        with pytest.raises(aiohttp.ClientError):
            await old_again("GET", KEYS)


async def test_connections_from_before_a_rotation_end_after_one_answer(api: Harness, client: Client) -> None:
    assert "Connection" not in (await client("GET", KEYS)).headers
    api.publish_front_proxy(api.front_proxy, CertificateAuthority("front-proxy-ca-2", api.directory))
    await api.server.upkeep()

    last = await client("GET", KEYS)
    assert (last.status, last.headers["Connection"]) == (200, "close")
    assert "Connection" not in (await client("GET", KEYS)).headers


async def test_a_replaced_ca_is_not_believed_on_open_connections(api: Harness, client: Client) -> None:
    assert (await client("POST", ENCRYPT, body=encrypt_request())).status == 201
    api.publish_front_proxy(CertificateAuthority("front-proxy-ca-2", api.directory))
    await api.server.upkeep()

    refused = await client("POST", ENCRYPT, body=encrypt_request())
    assert (refused.status, refused.headers["Connection"]) == (401, "close")
    with pytest.raises(aiohttp.ClientError):
        await client("POST", ENCRYPT, body=encrypt_request())
    assert len(api.service.asked) == 1


async def test_sessions_are_not_resumed(api: Harness) -> None:
    context = ssl.create_default_context(cadata=api.kube.ca_bundle)
    context.load_cert_chain(api.proxy_files.certificate, api.proxy_files.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    _, writer = await asyncio.open_connection("127.0.0.1", api.server.port, ssl=context, server_hostname=SERVER_NAME)
    session = writer.get_extra_info("ssl_object").session
    assert session is not None
    writer.close()
    await writer.wait_closed()

    assert not session.has_ticket


async def _more(answers: asyncio.Semaphore, count: int) -> None:
    """Wait until so many more requests have been answered, none of those answered by now included."""
    async with asyncio.timeout(20):
        while not answers.locked():
            await answers.acquire()
        for _ in range(count):
            await answers.acquire()
