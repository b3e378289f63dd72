# SPDX-License-Identifier: Apache-2.0
"""The control plane is a real one: it authorizes, collects garbage, survives outages and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import users
from testbed.controlplane import ControlPlane
from testbed.kubectl import Kubectl, KubectlError
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster


def _config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}


def test_api_server_is_ready(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_certificate_user_gets_what_rbac_says_and_no_more(
    kubectl: Kubectl, namespace: str, user: Callable[..., Path]
) -> None:
    alice = kubectl.with_kubeconfig(user("alice", ["developers"]))
    assert alice.json("auth", "whoami")["status"]["userInfo"]["groups"] == ["developers", "system:authenticated"]
    with pytest.raises(KubectlError, match=r'User "alice" cannot list resource "secrets"'):
        alice("get", "secrets", "--namespace", namespace)
    kubectl("create", "rolebinding", "dev", "--clusterrole=edit", "--group=developers", "--namespace", namespace)
    alice("get", "secrets", "--namespace", namespace)
    with pytest.raises(KubectlError, match="forbidden"):
        alice("get", "secrets", "--namespace", "kube-system")


def test_kubeconfigs_are_readable_by_their_owner_alone(user: Callable[..., Path]) -> None:
    assert user("alice").stat().st_mode & 0o077 == 0


def test_service_account_token_works(control_plane: ControlPlane, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "serviceaccount", "robot", "--namespace", namespace)
    robot = kubectl.with_kubeconfig(users.service_account(control_plane, namespace, "robot"))
    who = robot.json("auth", "whoami")["status"]["userInfo"]
    assert who["username"] == f"system:serviceaccount:{namespace}:robot"
    with pytest.raises(KubectlError, match="forbidden"):
        robot("get", "secrets", "--namespace", namespace)


def test_owned_objects_are_collected_and_namespaces_vanish(kubectl: Kubectl) -> None:
    namespace = "garbage"
    kubectl("create", "namespace", namespace)
    kubectl.apply(_config_map("owner"), namespace=namespace)
    owner = kubectl.json("get", "configmap", "owner", "--namespace", namespace)
    owned = _config_map("owned")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned["metadata"] = {"name": "owned", "ownerReferences": [reference]}
    kubectl.apply(owned, namespace=namespace)
    kubectl("delete", "configmap", "owner", "--namespace", namespace)

    def names() -> str:
        return kubectl("get", "configmap", "--namespace", namespace, "-o", "name")

    wait_for(lambda: "owned" not in names(), 30, "the owned ConfigMap to be collected")
    kubectl("delete", "namespace", namespace, "--wait=false")
    wait_for(lambda: not kubectl("get", "namespace", namespace, "--ignore-not-found"), 30, "the namespace to be gone")


def test_objects_survive_an_outage_of_the_api_server(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    kubectl.apply(_config_map("kept"), namespace=namespace)
    before = kubectl("get", "configmap", "kept", "--namespace", namespace, "-o", "jsonpath={.metadata.uid}")
    control_plane.stop_apiserver()
    with pytest.raises(KubectlError, match="refused"):
        kubectl("get", "--raw", "/readyz")
    control_plane.start_apiserver()
    after = kubectl("get", "configmap", "kept", "--namespace", namespace, "-o", "jsonpath={.metadata.uid}")
    assert after == before


def test_requests_are_audited_and_counted(control_plane: ControlPlane, kubectl: Kubectl, namespace: str) -> None:
    def count() -> float:
        return control_plane.metrics().value("apiserver_request_total", verb="APPLY", resource="configmaps")

    before = count()
    kubectl.apply(_config_map("audited"), namespace=namespace)
    assert count() == before + 1
    (event,) = [
        event
        for event in control_plane.audit_events()
        if event["verb"] == "patch" and event["objectRef"].get("namespace") == namespace
    ]
    assert event["user"]["username"] == "admin"
    assert event["level"] == "Metadata"


def test_nothing_is_left_after_stop() -> None:
    with ControlPlane() as other:
        processes = other.processes()
        assert all(process.running for process in processes)
        assert other.kubectl("get", "--raw", "/readyz") == "ok"
        directory = other.directory
    assert not any(process.running for process in processes)
    assert not any(Path(f"/proc/{process.pid}").exists() for process in processes)
    assert not directory.exists()
    other.stop()
