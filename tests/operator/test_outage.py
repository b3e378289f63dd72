# SPDX-License-Identifier: Apache-2.0
"""The API server and the network fail in every way: nothing is lost, nothing is done twice, and no process restarts."""

import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from testbed.controlplane import ControlPlane
from testbed.faultproxy import FaultProxy
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.waiting import wait_for
from tests.operator.api import Api
from tests.operator.apicalls import WRITES, ApiCalls, resource_of
from tests.operator.backlog import Backlog
from tests.operator.tenant import GONE_SECONDS, Tenant

pytestmark = pytest.mark.cluster

OUTAGE_SECONDS = 180.0
"""How long the API server stays away in the one test of that; the operator's own patience with it is none."""
SERVER_ERRORS_SECONDS = 30.0
LIST_DELAY_SECONDS = 10.0
BUSY_SECONDS = 7.0
"""Longer than Kopf waits for what its tasks have begun."""
LISTED = frozenset({"customermasterkeys", "secrets", "encryptedsecrets"})
"""What must be listed before anything is decided."""
ENCRYPTED_SECRETS = "/encryptedsecrets"


class SilentProxy(FaultProxy):
    """Loses every event of watches whose path contains `silent`; to their client they look alive."""

    silent = "\0"

    async def _relay_watch(self, request: web.BaseRequest, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        if self.silent not in request.path:
            return await super()._relay_watch(request, upstream)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async for _ in upstream.content.iter_any():
            pass
        return response


class CuttingProxy(FaultProxy):
    """Ends the connection in the middle of the answer to each of the next `cuts` lists."""

    cuts = 0

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await super()._handle(request)
        listing = request.method == "GET" and request.path.rpartition("/")[2] in LISTED and "watch" not in request.query
        if not (listing and self.cuts and isinstance(answer, web.Response) and isinstance(answer.body, bytes)):
            return answer
        self.cuts -= 1
        cut = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(answer.body))})
        await cut.prepare(request)
        await cut.write(answer.body[: len(answer.body) // 2])
        assert request.transport is not None
        request.transport.abort()
        return cut


@pytest.fixture
def cutting_proxy(control_plane: ControlPlane) -> Iterator[CuttingProxy]:
    with CuttingProxy(control_plane) as proxy:
        yield proxy


@pytest.fixture
def silent_proxy(control_plane: ControlPlane) -> Iterator[SilentProxy]:
    with SilentProxy(control_plane) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(own_operator: OwnOperator, fault_proxy: FaultProxy) -> OperatorProcess:
    """An operator that reaches the API server through `fault_proxy` only, watching."""
    operator = own_operator(server=fault_proxy.url)
    wait_watching(fault_proxy)
    return operator


def wait_watching(proxy: FaultProxy) -> None:
    wait_for(
        lambda: all(proxy.open_watches(f"/{resource}") for resource in LISTED), 60, "watches of all kinds", interval=0.2
    )


def crypto_api_works(tenant: Tenant) -> bool:
    return bool(tenant.encrypt("db", {"a": b"1"}))


def check_done_once(backlog: Backlog, calls: ApiCalls, operator: OperatorProcess, pid: int) -> None:
    """Every object is right, each Secret was created once, and the process is the one of before."""
    backlog.wait_reason("Decrypted")
    backlog.check_secrets()
    assert calls.created_secrets(backlog.tenant.namespace) == dict.fromkeys(backlog.names, 1)
    assert (operator.running, operator.pid) == (True, pid)
    wait_for(lambda: crypto_api_works(backlog.tenant), 60, "the crypto API", retry_on=(Exception,))


@pytest.mark.parametrize("lines", [pytest.param(0, id="at-the-first-event"), pytest.param(3, id="at-the-fourth-event")])
def test_a_watch_that_breaks_again_and_again_loses_nothing(
    lines: int, behind_proxy: OperatorProcess, fault_proxy: FaultProxy, tenant: Tenant, control_plane: ControlPlane
) -> None:
    pid, calls, backlog = behind_proxy.pid, ApiCalls(control_plane), Backlog(tenant, 30)
    fault_proxy.cut_watches_after(lines)
    fault_proxy.cut_watches()
    backlog.create()
    wait_for(lambda: sum(r.watch for r in fault_proxy.requests) > 6, 60, "the watches to break a few times")
    fault_proxy.clear()
    check_done_once(backlog, calls, behind_proxy, pid)


def test_a_watch_cut_in_mid_stream_loses_nothing(
    behind_proxy: OperatorProcess, fault_proxy: FaultProxy, tenant: Tenant, control_plane: ControlPlane
) -> None:
    pid, calls = behind_proxy.pid, ApiCalls(control_plane)
    backlogs = [Backlog(tenant, 10, prefix=f"round-{number}") for number in range(4)]
    for backlog in backlogs:
        assert fault_proxy.cut_watches() > 0
        backlog.create()
        wait_watching(fault_proxy)
    for backlog in backlogs:
        backlog.wait_reason("Decrypted")
        backlog.check_secrets()
    created = calls.created_secrets(tenant.namespace)
    assert created == {name: 1 for backlog in backlogs for name in backlog.names}
    assert (behind_proxy.running, behind_proxy.pid) == (True, pid)


def test_watches_cut_during_their_first_listing_lose_nothing(
    own_operator: OwnOperator, fault_proxy: FaultProxy, tenant: Tenant, operator: OperatorProcess,
    control_plane: ControlPlane,
) -> None:  # fmt: skip
    backlog, calls = Backlog(tenant, 60), ApiCalls(control_plane)
    operator.stop()
    backlog.create()
    fault_proxy.cut_watches_after(0)
    own = own_operator(server=fault_proxy.url)
    check_done_once(backlog, calls, own, own.pid)


def test_lists_cut_in_the_middle_lose_nothing(
    own_operator: OwnOperator,
    operator: OperatorProcess,
    cutting_proxy: CuttingProxy,
    tenant: Tenant,
    control_plane: ControlPlane,
) -> None:
    backlog, calls = Backlog(tenant, 60), ApiCalls(control_plane)
    operator.stop()
    backlog.create()
    cutting_proxy.cuts = 6
    own = own_operator(server=cutting_proxy.url)
    check_done_once(backlog, calls, own, own.pid)
    assert cutting_proxy.cuts == 0


@pytest.mark.parametrize("code", [410, 500])
def test_an_error_in_a_watch_loses_nothing(
    code: int, behind_proxy: OperatorProcess, fault_proxy: FaultProxy, tenant: Tenant, control_plane: ControlPlane
) -> None:
    """Kopf ends on any but 410; it is started anew in the same process."""
    pid, calls, backlog = behind_proxy.pid, ApiCalls(control_plane), Backlog(tenant, 30)
    assert fault_proxy.inject_watch_error(code) >= len(LISTED)
    backlog.create()
    wait_watching(fault_proxy)
    check_done_once(backlog, calls, behind_proxy, pid)
    restarts = behind_proxy.metrics().value("strongroom_watch_restarts_total")
    assert (restarts > 0) == (code != 410)


def test_an_error_in_one_watch_while_the_others_are_busy_loses_nothing(
    behind_proxy: OperatorProcess, fault_proxy: FaultProxy, tenant: Tenant, control_plane: ControlPlane
) -> None:
    """Kopf gives the other watches five seconds, then cancels everything, tasks among it that others wait for."""
    pid, calls, backlog = behind_proxy.pid, ApiCalls(control_plane), Backlog(tenant, 20)
    backlog.create()
    assert fault_proxy.inject_watch_error(500, "/customermasterkeys") > 0
    until = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < until:
        for name in backlog.names:
            tenant.api.patch(tenant.path(name), {"metadata": {"labels": {"touched": str(time.monotonic_ns())}}})
    wait_watching(fault_proxy)
    check_done_once(backlog, calls, behind_proxy, pid)
    assert behind_proxy.metrics().value("strongroom_watch_restarts_total") > 0


@pytest.mark.timeout(240)
def test_nothing_is_decided_before_slow_lists_are_in(
    own_operator: OwnOperator,
    operator: OperatorProcess,
    fault_proxy: FaultProxy,
    tenant: Tenant,
    control_plane: ControlPlane,
) -> None:
    """Takes a minute: a list for the barrier, one for Kopf, each late."""
    settled, backlog = Backlog(tenant, 20, prefix="settled"), Backlog(tenant, 20)
    settled.create()
    settled.wait_reason("Decrypted")
    operator.stop()
    backlog.create()
    calls = ApiCalls(control_plane)
    fault_proxy.delay_lists(LIST_DELAY_SECONDS)
    own = own_operator(server=fault_proxy.url, start=False)
    own.start(wait=False)
    backlog.wait_reason("Decrypted", 150)
    check_done_once(backlog, calls, own, own.pid)
    events = calls.all()
    listed = {resource: _first(events, "list", {resource}) for resource in LISTED}
    written = min(
        _received(event)
        for event in events
        if event["verb"] in WRITES and resource_of(event) in {"secrets", "encryptedsecrets/status"}
        and event["objectRef"].get("namespace") != "strongroom"
    )  # fmt: skip
    assert written > max(_received(event) for event in listed.values())
    settled.check_secrets()
    assert not set(settled.names) & {event["objectRef"].get("name") for event in events if event["verb"] in WRITES}


def _first(events: list[dict[str, Any]], verb: str, resources: set[str]) -> dict[str, Any]:
    return next(event for event in events if event["verb"] == verb and resource_of(event) in resources)


def _received(event: dict[str, Any]) -> str:
    return str(event["requestReceivedTimestamp"])


def test_429_is_obeyed_and_loses_nothing(
    behind_proxy: OperatorProcess, fault_proxy: FaultProxy, tenant: Tenant, control_plane: ControlPlane
) -> None:
    pid, calls, backlog = behind_proxy.pid, ApiCalls(control_plane), Backlog(tenant, 20)
    pause = 5
    fault_proxy.answer("/secrets", 429, method="POST", headers={"Retry-After": str(pause)})
    fault_proxy.clear_requests()
    backlog.create()

    def tries() -> int:
        return sum(request.method == "POST" and request.path.endswith("/secrets") for request in fault_proxy.requests)

    wait_for(lambda: tries() >= len(backlog.names), 30, "a try for each")
    first = time.monotonic()
    wait_for(lambda: time.monotonic() - first > pause - 2, pause, "the time in which none may ask again")
    assert tries() == len(backlog.names)
    fault_proxy.clear()
    check_done_once(backlog, calls, behind_proxy, pid)


def test_half_a_minute_of_server_errors_loses_nothing(
    behind_proxy: OperatorProcess, fault_proxy: FaultProxy, tenant: Tenant, control_plane: ControlPlane
) -> None:
    pid, calls, backlog = behind_proxy.pid, ApiCalls(control_plane), Backlog(tenant, 30)
    fault_proxy.answer("", 503)
    fault_proxy.cut_watches()
    backlog.create()
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > SERVER_ERRORS_SECONDS, 60, "the outage to last", interval=1)
    assert backlog.secrets() == {}
    fault_proxy.clear()
    check_done_once(backlog, calls, behind_proxy, pid)


@pytest.mark.timeout(600)
def test_minutes_without_an_api_server_lose_nothing(
    operator: OperatorProcess, tenant: Tenant, control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    """Takes OUTAGE_SECONDS: everything that gives up after a minute must not. Objects are in work when it begins."""
    pid, namespace = operator.pid, tenant.namespace
    kept = tenant.deliver("kept", {"a": b"1"})
    calls, backlog = ApiCalls(control_plane), Backlog(tenant, 100)
    backlog.create()
    control_plane.stop_apiserver()
    started = time.monotonic()
    try:
        wait_for(
            lambda: time.monotonic() - started > OUTAGE_SECONDS, OUTAGE_SECONDS + 10, "the outage to last", interval=5
        )
        assert (operator.running, operator.pid) == (True, pid)
    finally:
        control_plane.start_apiserver()
        tenant.api.connection.close()  # the old one is gone; the next request opens another
    backlog.wait_reason("Decrypted")
    backlog.check_secrets()
    assert max(calls.created_secrets(namespace).values()) == 1
    assert tenant.existing_secret("kept") == kept
    assert (operator.running, operator.pid) == (True, pid)
    wait_for(lambda: crypto_api_works(tenant), 60, "the crypto API", retry_on=(Exception,))
    tenant.seal("later", {"a": b"1"})
    tenant.wait_ready("later")
    tenant.api.patch(tenant.secret_path("kept"), {"data": {"a": "eA=="}})
    tenant.wait_values("kept", {"a": b"1"})
    # The controllers of Kubernetes need a while to come back too; later tests rely on them.
    kubectl("create", "namespace", f"{namespace}-after")
    kubectl("delete", "namespace", f"{namespace}-after", "--timeout=150s", timeout=160)


@pytest.mark.timeout(180)
def test_what_a_watch_lost_is_found_by_listing_anew(
    own_operator: OwnOperator, silent_proxy: SilentProxy, tenant: Tenant, admin: Api, operator: OperatorProcess
) -> None:
    """Takes the half minute that the watch gets to deliver what a list shows."""
    tenant.deliver("deleted", {"a": b"1"})
    tenant.deliver("changed", {"a": b"1"})
    created, changed = tenant.encrypt("created", {"a": b"1"}), tenant.encrypt("changed", {"a": b"2"})
    silent_proxy.silent = ENCRYPTED_SECRETS
    own = own_operator(server=silent_proxy.url, overrides={"relistSeconds": 1})
    wait_for(lambda: any(r.watch and ENCRYPTED_SECRETS in r.path for r in silent_proxy.requests), 30, "the watch")
    pid = own.pid
    tenant.apply("created", created)
    tenant.apply("changed", changed)
    admin("DELETE", tenant.path("deleted"))
    wait_for(lambda: tenant.values("created") == {"a": b"1"}, 90, "the new object to be found", interval=0.5)
    wait_for(lambda: tenant.values("changed") == {"a": b"2"}, 90, "the change to be found", interval=0.5)
    wait_for(lambda: tenant.secret("deleted") is None, GONE_SECONDS, "the garbage collector")
    assert own.pid == pid
