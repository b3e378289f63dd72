# SPDX-License-Identifier: Apache-2.0
"""Every fault happens, and without one the proxy is not noticed."""

import json
import ssl
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from testbed import users
from testbed.controlplane import ControlPlane
from testbed.faultproxy import FaultProxy
from testbed.kubectl import Kubectl, KubectlError
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def robot(control_plane: ControlPlane, fault_proxy: FaultProxy, kubectl: Kubectl, namespace: str) -> Kubectl:
    """kubectl as a ServiceAccount that may edit its namespace, through the proxy."""
    kubectl("create", "serviceaccount", "robot", "--namespace", namespace)
    kubectl(
        *("create", "rolebinding", "robot", "--clusterrole=edit"),
        *(f"--serviceaccount={namespace}:robot", "--namespace", namespace),
    )
    return kubectl.with_kubeconfig(users.service_account(control_plane, namespace, "robot", server=fault_proxy.url))


@pytest.fixture
def bearer_token(robot: Kubectl) -> str:
    token = json.loads(robot.kubeconfig.read_text())["users"][0]["user"]["token"]
    assert isinstance(token, str)
    return token


@pytest.fixture
async def client(
    control_plane: ControlPlane, fault_proxy: FaultProxy, bearer_token: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """The same ServiceAccount as a plain HTTP client."""
    async with aiohttp.ClientSession(
        fault_proxy.url,
        headers={"Authorization": f"Bearer {bearer_token}"},
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(control_plane.ca.certificate))),
    ) as session:
        yield session


def _config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}


async def _read_until_cut(response: aiohttp.ClientResponse) -> bytes:
    """What arrived; fails if the response ended as it should."""
    received = b""
    try:
        while chunk := await response.content.readany():
            received += chunk
    except aiohttp.ClientPayloadError:
        return received
    pytest.fail(f"the response was not cut, but ended after {received!r}")


def test_faithful_without_a_fault_and_records_requests(robot: Kubectl, fault_proxy: FaultProxy, namespace: str) -> None:
    robot.apply(_config_map("one"), namespace=namespace)
    assert robot.json("get", "configmap", "one", "--namespace", namespace)["data"] == {"a": "1"}
    with pytest.raises(KubectlError, match="NotFound"):
        robot("get", "configmap", "none", "--namespace", namespace)
    (patch,) = [request for request in fault_proxy.requests if request.method == "PATCH"]
    assert patch.path == f"/api/v1/namespaces/{namespace}/configmaps/one"
    assert patch.content_type == "application/apply-patch+yaml"
    assert patch.query["fieldManager"] == "kubectl"


def test_client_certificates_do_not_pass(kubectl: Kubectl, fault_proxy: FaultProxy) -> None:
    with pytest.raises(KubectlError, match="Forbidden"):
        kubectl("get", "--raw", "/api/v1/namespaces/default/secrets", "--server", fault_proxy.url)


async def test_lists_are_delayed_and_single_objects_are_not(
    client: aiohttp.ClientSession, fault_proxy: FaultProxy, robot: Kubectl, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    robot.apply(_config_map("one"), namespace=namespace)
    fault_proxy.delay_lists(1.0)
    for suffix, delayed in (("", True), ("/one", False)):
        started = time.monotonic()
        async with client.get(path + suffix) as response:
            assert response.status == 200
        assert (time.monotonic() - started >= 1.0) is delayed


async def test_answers_instead_of_the_api_server(
    client: aiohttp.ClientSession, fault_proxy: FaultProxy, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    fault_proxy.answer("/configmaps", 429, method="GET", headers={"Retry-After": "7"})
    async with client.get(path) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert (await response.json())["kind"] == "Status"
    async with client.post(path, json=_config_map("posted")) as response:
        assert response.status == 201
    fault_proxy.clear()
    async with client.get(path) as response:
        assert response.status == 200


async def test_watch_is_cut_in_the_middle_of_a_line(
    client: aiohttp.ClientSession, fault_proxy: FaultProxy, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    async with client.get(path, params={"watch": "true"}) as watch:
        await watch.content.readline()
        assert fault_proxy.open_watches() == 1
        assert fault_proxy.cut_watches() == 1
        received = await _read_until_cut(watch)
    assert not received.endswith(b"\n")
    wait_for(lambda: fault_proxy.open_watches() == 0, 5, "the watch to be forgotten")


async def test_watch_is_cut_after_so_many_lines(
    client: aiohttp.ClientSession, fault_proxy: FaultProxy, robot: Kubectl, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    robot.apply(_config_map("one"), _config_map("two"), _config_map("three"), namespace=namespace)
    fault_proxy.cut_watches_after(2)
    async with client.get(path, params={"watch": "true"}) as watch:
        received = await _read_until_cut(watch)
    lines = received.split(b"\n")
    assert [json.loads(line)["type"] for line in lines[:2]] == ["ADDED", "ADDED"]
    assert len(lines) == 3


async def test_error_is_injected_between_two_events(
    client: aiohttp.ClientSession, fault_proxy: FaultProxy, robot: Kubectl, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    async with client.get(path, params={"watch": "true"}) as watch:
        await watch.content.readline()
        assert fault_proxy.inject_watch_error(500, path="/secrets") == 0
        assert fault_proxy.inject_watch_error(500, path="/configmaps") == 1
        robot.apply(_config_map("later"), namespace=namespace)
        events = [json.loads(await watch.content.readline()) for _ in range(2)]
    assert events[0]["type"] == "ERROR"
    assert events[0]["object"]["code"] == 500
    assert events[1]["object"]["metadata"]["name"] == "later"


async def test_connection_breaks_when_the_api_server_is_away(
    client: aiohttp.ClientSession, control_plane: ControlPlane
) -> None:
    control_plane.stop_apiserver()
    try:
        with pytest.raises(aiohttp.ClientError):
            await client.get("/api")
    finally:
        control_plane.start_apiserver()
