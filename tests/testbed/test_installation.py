# SPDX-License-Identifier: Apache-2.0
"""The chart's objects are the chart's own, but for the way to a process outside the cluster."""

from collections.abc import Iterator

import pytest

from testbed import TestBedError, users
from testbed.controlplane import ControlPlane
from testbed.installation import NAMESPACE, Installation, helm, install
from testbed.kubectl import Kubectl, KubectlError

pytestmark = pytest.mark.cluster

_APISERVICE = "v1alpha1.crypto.strongroom.dev"


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """On a control plane of its own: the session's carries what the tests of the operator need."""
    with ControlPlane() as control_plane:
        yield install(control_plane)


@pytest.fixture
def admin(installation: Installation) -> Kubectl:
    return installation.control_plane.kubectl


def test_api_server_is_led_to_a_port_of_this_machine(installation: Installation, admin: Kubectl) -> None:
    service = admin.json("get", "apiservice", _APISERVICE)["spec"]["service"]
    assert service == {"name": "strongroom", "namespace": NAMESPACE, "port": installation.api_port}
    spec = admin.json("get", "service", "strongroom", "--namespace", NAMESPACE)["spec"]
    assert (spec["type"], spec["externalName"]) == ("ExternalName", "localhost")


def test_nothing_that_needs_a_node_is_installed(admin: Kubectl) -> None:
    assert admin("get", "deployments,persistentvolumeclaims", "--namespace", NAMESPACE, "-o", "name") == ""


def test_operator_has_the_permissions_of_its_service_account_alone(installation: Installation, admin: Kubectl) -> None:
    operator = admin.with_kubeconfig(users.service_account(installation.control_plane, NAMESPACE, "strongroom"))
    assert operator("auth", "can-i", "update", "secrets", "--namespace", "default").strip() == "yes"
    with pytest.raises(KubectlError):
        operator("auth", "can-i", "get", "secrets", "--namespace", "default")


def test_custom_resources_can_be_used_at_once(admin: Kubectl) -> None:
    assert admin("get", "customermasterkeys,encryptedsecrets", "--all-namespaces") == ""


def test_new_installation_removes_what_only_the_previous_one_had(installation: Installation, admin: Kubectl) -> None:
    def policies() -> set[str]:
        return set(admin("get", "validatingadmissionpolicies", "-o", "name").split())

    before = policies()
    changed = install(
        installation.control_plane,
        {"admissionPolicy": {"requireSecretCreate": False}},
        previous=installation,
    )
    assert policies() < before
    assert changed.api_port == installation.api_port
    install(installation.control_plane, previous=changed)
    assert policies() == before


def test_failure_of_helm_is_shown(installation: Installation) -> None:
    with pytest.raises(TestBedError, match=r"helm template x /nonexistent failed:\n.*not found"):
        helm(installation.control_plane, "template", "x", "/nonexistent")
