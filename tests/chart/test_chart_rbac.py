# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the whole table, so that a new permission is a change of a test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed import users
from testbed.controlplane import ControlPlane
from testbed.installation import Installation
from testbed.kubectl import Kubectl, KubectlError
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster

Rule = tuple[str, str, tuple[str, ...], tuple[str, ...]]

READ = ("get", "list", "watch")
KMS, CRYPTO = "kms.strongroom.dev", "crypto.strongroom.dev"

OPERATOR: list[Rule] = [
    # group, resource, names, verbs
    (KMS, "customermasterkeys", (), READ),
    (KMS, "encryptedsecrets", (), READ),
    (KMS, "customermasterkeys/status", (), ("patch",)),
    (KMS, "encryptedsecrets/status", (), ("patch",)),
    ("", "secrets", (), ("create", "list", "update", "watch")),
    ("authorization.k8s.io", "subjectaccessreviews", (), ("create",)),
    ("events.k8s.io", "events", (), ("create", "patch")),
    ("", "namespaces", ("kube-system",), ("get",)),
    ("apiregistration.k8s.io", "apiservices", ("v1alpha1.crypto.strongroom.dev",), ("get", "patch")),
]
OPERATOR_NAMESPACE: list[Rule] = [
    ("", "configmaps", (), ("create", "get", "update")),
    ("coordination.k8s.io", "leases", (), ("create",)),
    ("coordination.k8s.io", "leases", ("strongroom",), ("get", "update")),
    ("", "secrets", ("strongroom-serving-ca",), ("get",)),
]
CLUSTER_ROLES: dict[str, list[Rule]] = {
    "strongroom-operator": OPERATOR,
    "strongroom-key-admin": [
        (KMS, "customermasterkeys", (), ("create", "delete", "get", "list", "patch", "update", "watch"))
    ],
    "strongroom-key-user": [(CRYPTO, "keys", (), ("use",))],
    "strongroom-key-encrypter": [
        (CRYPTO, "keys", (), ("get", "list")),
        (CRYPTO, "keys/encrypt", (), ("create",)),
    ],
    "strongroom-key-decrypter": [
        (CRYPTO, "keys", (), ("get", "list")),
        (CRYPTO, "keys/decrypt", (), ("create",)),
    ],
    "strongroom-auditor": [
        (KMS, "customermasterkeys", (), READ),
        (KMS, "encryptedsecrets", (), READ),
        ("", "events", (), READ),
        ("events.k8s.io", "events", (), READ),
    ],
    "strongroom-view": [(KMS, "encryptedsecrets", (), READ)],
    "strongroom-edit": [
        (KMS, "encryptedsecrets", (), ("create", "delete", "deletecollection", "patch", "update")),
    ],
}


def flat(role: dict[str, Any]) -> list[Rule]:
    return sorted(
        (group, resource, tuple(rule.get("resourceNames", ())), tuple(sorted(rule["verbs"])))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    )


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def test_cluster_roles_are_exactly_these(render: Callable[..., Any]) -> None:
    roles = named(render(), "ClusterRole")
    assert {name: flat(role) for name, role in roles.items()} == {
        name: sorted(rules) for name, rules in CLUSTER_ROLES.items()
    }


def test_roles_in_the_operators_namespace_are_exactly_these(render: Callable[..., Any]) -> None:
    (role,) = named(render(), "Role").values()
    assert role["metadata"]["namespace"] == "strongroom"
    assert flat(role) == sorted(OPERATOR_NAMESPACE)


def test_only_the_operator_is_bound_and_only_to_these(render: Callable[..., Any]) -> None:
    bound = set()
    for item in render():
        if item["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            assert item["subjects"] == [{"kind": "ServiceAccount", "name": "strongroom", "namespace": "strongroom"}]
            where = item["metadata"].get("namespace", "")
            bound.add((where, item["roleRef"]["kind"], item["roleRef"]["name"]))
    assert bound == {
        ("", "ClusterRole", "strongroom-operator"),
        ("strongroom", "Role", "strongroom-operator"),
        ("kube-system", "Role", "extension-apiserver-authentication-reader"),
    }


def test_without_drift_watch_the_operator_cannot_read_secrets(render: Callable[..., Any]) -> None:
    role = named(render({"secrets": {"driftWatch": False}}), "ClusterRole")["strongroom-operator"]
    assert [rule[3] for rule in flat(role) if rule[1] == "secrets"] == [("create", "update")]


def test_without_the_crypto_api_its_permissions_are_gone(render: Callable[..., Any]) -> None:
    objects = render({"apiService": {"enabled": False}})
    assert not [rule for rule in flat(named(objects, "ClusterRole")["strongroom-operator"]) if rule[1] == "apiservices"]
    (role,) = named(objects, "Role").values()
    assert flat(role) == [rule for rule in OPERATOR_NAMESPACE if rule[1] != "secrets"]
    assert {item["metadata"]["namespace"] for item in objects if item["kind"] == "RoleBinding"} == {"strongroom"}


@pytest.mark.parametrize(("switch", "expected"), [(True, True), (False, False)])
def test_aggregation_to_built_in_roles_can_be_switched_off(
    switch: bool, expected: bool, render: Callable[..., Any]
) -> None:
    roles = named(render({"rbac": {"aggregateToBuiltInRoles": switch}}), "ClusterRole")
    aggregated = {
        name for name, role in roles.items() if any("aggregate-to" in label for label in role["metadata"]["labels"])
    }
    assert aggregated == ({"strongroom-view", "strongroom-edit"} if expected else set())


def test_built_in_roles_get_encrypted_secrets_and_never_keys(installed: Installation, kubectl: Kubectl) -> None:
    def rules(role: str) -> list[Rule]:
        return [rule for rule in flat(kubectl.json("get", "clusterrole", role)) if "strongroom" in rule[0]]

    view, edit = CLUSTER_ROLES["strongroom-view"], CLUSTER_ROLES["strongroom-edit"]
    wait_for(lambda: rules("view") == view, 30, "EncryptedSecrets in the role view")
    wait_for(lambda: rules("edit") == sorted(view + edit), 30, "EncryptedSecrets in the role edit")
    wait_for(lambda: rules("admin") == sorted(view + edit), 30, "EncryptedSecrets in the role admin")


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "name", "allowed"),
    [
        ("list", f"encryptedsecrets.{KMS}", "", "", True),
        ("patch", f"encryptedsecrets/status.{KMS}", "", "", True),
        ("update", f"encryptedsecrets.{KMS}", "", "", False),
        ("update", f"customermasterkeys.{KMS}", "", "", False),
        ("create", "secrets", "", "", True),
        ("get", "secrets", "", "", False),
        ("update", "secrets", "", "", True),
        ("patch", "secrets", "", "", False),
        ("patch", "secrets", "strongroom", "strongroom-serving-ca", False),
        ("delete", "secrets", "", "", False),
        ("get", "secrets", "strongroom", "strongroom-pin", False),
        ("get", "configmaps", "kube-system", "extension-apiserver-authentication", False),
        ("update", "configmaps", "strongroom", "strongroom-ledger-x", True),
        ("delete", "configmaps", "strongroom", "", False),
        ("get", "configmaps", "default", "", False),
        ("create", "serviceaccounts/token", "strongroom", "strongroom", False),
        ("update", "validatingadmissionpolicies.admissionregistration.k8s.io", "", "", False),
        ("delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io", "", "", False),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", "", False),
        ("impersonate", "users", "", "", False),
        ("get", "namespaces", "", "kube-system", True),
        ("get", "namespaces", "", "default", False),
        ("use", f"keys.{CRYPTO}", "default", "prod", False),
        ("create", f"keys/decrypt.{CRYPTO}", "default", "prod", False),
    ],
)
def test_api_server_agrees_on_what_the_operator_may_do(
    verb: str, resource: str, namespace: str, name: str, allowed: bool, installed: Installation, kubectl: Kubectl
) -> None:
    # The crypto API is off in this installation, and with it the rights that serve it.
    kind, _, group = resource.partition(".")
    kind, _, subresource = kind.partition("/")
    asked = {"verb": verb, "group": group, "resource": kind, "subresource": subresource, "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:strongroom:strongroom",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:strongroom", "system:authenticated"],
            "resourceAttributes": asked | {"namespace": namespace},
        },
    }
    status = kubectl.json("create", "-f", "-", stdin=json.dumps(review))["status"]
    assert status["allowed"] is allowed, status


def test_operator_cannot_change_its_own_configuration(
    installed: Installation, control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    (name,) = [item["metadata"]["name"] for item in installed.objects if item["kind"] == "ConfigMap"]
    operator: Path = users.service_account(control_plane, "strongroom", "strongroom")
    current = kubectl.json("get", "configmap", name, "-n", "strongroom")
    current["data"]["config.yaml"] += "\n"
    with pytest.raises(KubectlError, match="field is immutable when `immutable` is set"):
        kubectl.with_kubeconfig(operator)("replace", "-f", "-", stdin=json.dumps(current))
