# SPDX-License-Identifier: Apache-2.0
"""The policies for whoever writes EncryptedSecrets, with real users."""

import functools
import json
import os
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.controlplane import ControlPlane
from testbed.installation import Installation
from testbed.kubectl import Kubectl, KubectlError
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster

RBAC = "rbac.authorization.k8s.io"
VALUE = "U1IxAV8AAQIDBAUGBwgJCgsMDQ4AAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
OTHER = VALUE.replace("AV8A", "AV8B")

WRITE = {
    "apiGroups": ["kms.strongroom.dev"],
    "resources": ["encryptedsecrets"],
    "verbs": ["get", "create", "update", "patch", "delete"],
}
USE_PROD = {"apiGroups": ["crypto.strongroom.dev"], "resources": ["keys"], "resourceNames": ["prod"], "verbs": ["use"]}
CREATE_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}


def encrypted_secret(key: str = "prod", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db"},
        "spec": {"keyRef": {"name": key}, "scope": "Strict", "encryptedData": {"password": VALUE}} | spec,
    }


@dataclass(frozen=True)
class Person:
    """A user with rights in one namespace."""

    name: str
    namespace: str
    admin: Kubectl
    kubectl: Kubectl

    def apply(self, item: dict[str, Any], namespace: str = "") -> str:
        return self.kubectl.apply(item, namespace=namespace or self.namespace)

    def grant(self, *rules: dict[str, Any], namespace: str = "") -> None:
        """Give these rights, and return when the API server knows."""
        metadata = {"name": f"test-{secrets.token_hex(4)}", "namespace": namespace or self.namespace}
        self.admin.apply(
            {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": metadata["name"]},
                "subjects": [{"apiGroup": RBAC, "kind": "User", "name": self.name}],
            },
        )
        for rule in rules:
            allowed = functools.partial(self._may, rule, metadata["namespace"])
            wait_for(allowed, 10, f"{self.name} to have {rule}")

    def _may(self, rule: dict[str, Any], namespace: str) -> bool:
        asked = {
            "namespace": namespace,
            "verb": rule["verbs"][0],
            "group": rule["apiGroups"][0],
            "resource": rule["resources"][0],
            "name": rule.get("resourceNames", [""])[0],
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": self.name, "resourceAttributes": asked},
        }
        return bool(self.admin.json("create", "-f", "-", stdin=json.dumps(review))["status"]["allowed"])


@pytest.fixture
def new_person(kubectl: Kubectl, namespace: str, user: Callable[..., Path], installed: Installation) -> Any:
    """`new_person(name)`: who may write EncryptedSecrets in the test's namespace, and nothing else."""

    def make(name: str = "") -> Person:
        name = name or f"alice-{secrets.token_hex(3)}@example.org"
        person = Person(name, namespace, kubectl, kubectl.with_kubeconfig(user(name)))
        person.grant(WRITE)
        return person

    return make


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(KubectlError) as refused:
        action()
    return refused.value.stderr


def paste(command: str, control_plane: ControlPlane) -> None:
    """Run a command from a message as an administrator would."""
    environment = control_plane.kubectl.environment()
    environment["PATH"] = f"{control_plane.binaries.kubectl.parent}{os.pathsep}{environment['PATH']}"
    subprocess.run(["sh", "-euc", command], env=environment, check=True, capture_output=True)


def test_writer_without_permission_on_the_key_is_told_the_command_that_grants_it(
    new_person: Callable[..., Person], control_plane: ControlPlane
) -> None:
    alice = new_person()
    alice.grant(CREATE_SECRETS)
    said = refusal(lambda: alice.apply(encrypted_secret()))
    assert f'user "{alice.name}" may not use key "prod" in namespace "{alice.namespace}"' in said
    assert "(Forbidden)" in said or "is forbidden" in said
    paste(said.partition("To grant it: ")[2], control_plane)
    wait_for(lambda: alice.apply(encrypted_secret()), 10, "the grant", retry_on=(KubectlError,))
    assert "may not use key" in refusal(lambda: alice.apply(encrypted_secret("other")))


def test_writer_who_may_not_create_secrets_is_told_the_command_that_grants_it(
    new_person: Callable[..., Person], control_plane: ControlPlane
) -> None:
    alice = new_person()
    alice.grant(USE_PROD)
    said = refusal(lambda: alice.apply(encrypted_secret()))
    assert f'user "{alice.name}" may not create Secrets in namespace "{alice.namespace}"' in said
    paste(said.partition("To grant it: ")[2], control_plane)
    wait_for(lambda: alice.apply(encrypted_secret()), 10, "the grant", retry_on=(KubectlError,))


def test_granting_twice_keeps_the_first_grant(new_person: Callable[..., Person], control_plane: ControlPlane) -> None:
    alice, bob = new_person(), new_person()
    for person in (alice, bob):
        person.grant(CREATE_SECRETS)
        said = refusal(functools.partial(person.apply, encrypted_secret()))
        paste(said.partition("To grant it: ")[2], control_plane)
    for person in (bob, alice):
        apply = functools.partial(person.apply, encrypted_secret())
        wait_for(apply, 10, f"the grant to {person.name}", retry_on=(KubectlError,))


@pytest.mark.parametrize("name", ["$(id)", "a'; id; '", 'a" b', "a\\b"])
def test_user_name_cannot_smuggle_anything_into_the_command(name: str, new_person: Callable[..., Person]) -> None:
    alice = new_person(name)
    command = refusal(lambda: alice.apply(encrypted_secret())).partition("To grant it: ")[2]
    assert name not in command
    assert command.strip().endswith(" --user=USER")


def test_user_name_with_a_line_break_is_refused_with_a_plain_message(new_person: Callable[..., Person]) -> None:
    alice = new_person("a\nb")
    alice.grant(CREATE_SECRETS)
    assert "the user may not use the key that spec.keyRef names" in refusal(lambda: alice.apply(encrypted_secret()))


def test_permission_in_another_namespace_does_not_count(new_person: Callable[..., Person], kubectl: Kubectl) -> None:
    alice = new_person()
    alice.grant(CREATE_SECRETS)
    elsewhere = f"{alice.namespace}-b"
    kubectl("create", "namespace", elsewhere)
    alice.grant(USE_PROD, namespace=elsewhere)
    assert "may not use key" in refusal(lambda: alice.apply(encrypted_secret()))
    kubectl("delete", "namespace", elsewhere, "--wait=false")


def test_changing_the_spec_takes_permission_and_changing_the_rest_does_not(
    new_person: Callable[..., Person], kubectl: Kubectl
) -> None:
    alice = new_person()
    kubectl.apply(encrypted_secret(), namespace=alice.namespace)
    alice.kubectl("label", "encryptedsecret", "db", "-n", alice.namespace, "team=a")
    change = json.dumps({"spec": {"encryptedData": {"password": OTHER}}})
    patch = ("patch", "encryptedsecret", "db", "-n", alice.namespace, "--type=merge", "--patch")
    assert "may not use key" in refusal(lambda: alice.kubectl(*patch, change))
    suspend = json.dumps({"spec": {"suspend": True}})
    assert "may not use key" in refusal(lambda: alice.kubectl(*patch, suspend))
    alice.grant(USE_PROD, CREATE_SECRETS)
    alice.kubectl(*patch, change)


def test_moving_to_a_key_takes_permission_on_the_new_one(new_person: Callable[..., Person]) -> None:
    alice = new_person()
    alice.grant(USE_PROD, CREATE_SECRETS)
    alice.apply(encrypted_secret())
    assert 'may not use key "other"' in refusal(lambda: alice.apply(encrypted_secret("other")))


def test_deleting_takes_no_permission_on_the_key(new_person: Callable[..., Person], kubectl: Kubectl) -> None:
    alice = new_person()
    kubectl.apply(encrypted_secret(), namespace=alice.namespace)
    alice.kubectl("delete", "encryptedsecret", "db", "-n", alice.namespace)


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ("requireKeyUse", {"strongroom-key-use"}),
        ("requireSecretCreate", {"strongroom-secret-create"}),
        ("restrictOperator", {"strongroom-operator-secrets"}),
        ("enabled", {"strongroom-key-use", "strongroom-secret-create", "strongroom-operator-secrets"}),
    ],
)
def test_each_policy_can_be_switched_off(switch: str, gone: set[str], render: Callable[..., Any]) -> None:
    def names(values: dict[str, Any], kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in render(values) if item["kind"] == kind}

    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        assert names({}, kind) - names({"admissionPolicy": {switch: False}}, kind) == gone


def test_policies_fail_closed_and_are_well_typed(installed: Installation, kubectl: Kubectl) -> None:
    def checked() -> list[Any]:
        policies = [
            item
            for item in kubectl.json("get", "validatingadmissionpolicies")["items"]
            if item["metadata"]["name"].startswith("strongroom-")
        ]
        return policies if all("typeChecking" in item.get("status", {}) for item in policies) else []

    policies = wait_for(checked, 30, "the policies to be type-checked")
    assert len(policies) == 3
    for policy in policies:
        assert policy["status"]["typeChecking"] == {}
        assert policy["spec"]["failurePolicy"] == "Fail"
    for binding in kubectl.json("get", "validatingadmissionpolicybindings")["items"]:
        assert binding["spec"]["validationActions"] == ["Deny"]
