# SPDX-License-Identifier: Apache-2.0
"""What the operator's ServiceAccount may do to Secrets: its token in the wrong hands changes and shows no other's."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from testbed.kubectl import Kubectl
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
POLICY = "ValidatingAdmissionPolicy 'strongroom-operator-secrets'"
CONTENT = base64.b64encode(b"nobody's business").decode()
ADOPT = {"strongroom.dev/adopt": "true"}

OURS = {
    "apiVersion": "kms.strongroom.dev/v1alpha1",
    "kind": "EncryptedSecret",
    "name": "s",
    "uid": "0d3cd8ae-8a1f-4f6e-9c57-3b0f3f6d2a11",
    "controller": True,
}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "3b0f3f6d-8a1f-4f6e-9c57-0d3cd8ae2a11"}


def secret(*owners: dict[str, Any], name: str = "s", kind: str = "Opaque", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "ownerReferences": list(owners)} | metadata,
        "type": kind,
        "data": {"password": CONTENT},
    }


# The owners do not exist; the garbage collector would delete what belongs to no one. A finalizer keeps it meanwhile.
KEPT = {"finalizers": ["example.org/kept-by-the-test"]}


@pytest.fixture
def existing(kubectl: Kubectl, namespace: str) -> Any:
    """`existing(secret)`: created by an administrator; returns its path."""

    def make(item: dict[str, Any]) -> str:
        kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(item))
        return f"/api/v1/namespaces/{namespace}/secrets/{item['metadata']['name']}"

    yield make
    for item in kubectl.json("get", "secrets", "-n", namespace)["items"]:
        kubectl(
            *("patch", "secret", item["metadata"]["name"], "-n", namespace, "--type=merge"),
            *("--patch", '{"metadata":{"finalizers":null}}'),
        )


FOREIGN = {
    "no owner": secret(),
    "an owner that does not control": secret(OURS | {"controller": False}, **KEPT),
    "an owner without the field controller": secret({k: v for k, v in OURS.items() if k != "controller"}, **KEPT),
    "another controller": secret(CONFIG_MAP | {"controller": True}, **KEPT),
    "another controller, asking for adoption": secret(CONFIG_MAP | {"controller": True}, annotations=ADOPT, **KEPT),
    "another group's EncryptedSecret": secret(OURS | {"apiVersion": "example.org/v1"}, **KEPT),
    "a look-alike of our group": secret(OURS | {"apiVersion": "kms.strongroom.dev.example.org/v1"}, **KEPT),
    "another kind of our group": secret(OURS | {"kind": "CustomerMasterKey"}, **KEPT),
    "an EncryptedSecret of another name": secret(OURS | {"name": "other"}, **KEPT),
    "our label alone": secret(labels={"strongroom.dev/managed": "true"}),
    "adoption refused": secret(annotations={"strongroom.dev/adopt": "false"}),
}

OWN = {
    "controlled by an EncryptedSecret": secret(OURS, **KEPT),
    "controlled under a later version": secret(OURS | {"apiVersion": "kms.strongroom.dev/v1"}, **KEPT),
    "with a prepended owner": secret(CONFIG_MAP, OURS, **KEPT),
    "asking for adoption": secret(annotations=ADOPT),
    "asking for adoption with an owner that does not control": secret(CONFIG_MAP, annotations=ADOPT, **KEPT),
}

REQUESTS: dict[str, tuple[str, object, str]] = {
    "empty merge patch": (MERGE, {}, "application/json"),
    "empty merge patch for metadata": (MERGE, {}, METADATA_ONLY),
    "empty JSON patch": (JSON_PATCH, [], "application/json"),
    "empty strategic patch": (STRATEGIC, {}, "application/json"),
    "annotation": (MERGE, {"metadata": {"annotations": ADOPT}}, "application/json"),
    "ownership": (MERGE, {"metadata": {"ownerReferences": [OURS]}}, "application/json"),
    "data": (JSON_PATCH, [{"op": "replace", "path": "/data", "value": {}}], "application/json"),
}


@pytest.mark.parametrize("item", FOREIGN.values(), ids=FOREIGN)
def test_foreign_secret_is_neither_changed_nor_shown(
    item: dict[str, Any], existing: Callable[..., str], operator_api: Any, kubectl: Kubectl, namespace: str
) -> None:
    path = existing(item)
    before = kubectl.json("get", "secret", "s", "-n", namespace)
    for content_type, body, accept in REQUESTS.values():
        answer = operator_api("PATCH", path, body, content_type=content_type, accept=accept)
        assert (answer.code, answer.body["reason"]) == (422, "Invalid"), answer.text
        assert POLICY in answer.body["message"]
        assert f'Secret "{namespace}/s" is not controlled by an EncryptedSecret' in answer.body["message"]
        assert CONTENT not in answer.text
    applied = secret(OURS) | {"data": {}}
    answer = operator_api("PATCH", f"{path}?fieldManager=strongroom&force=true", applied, content_type=APPLY)
    assert answer.code == 422
    assert CONTENT not in answer.text
    after = kubectl.json("get", "secret", "s", "-n", namespace)
    assert (after["data"], after["metadata"].get("annotations")) == (
        before["data"],
        before["metadata"].get("annotations"),
    )
    assert after["metadata"].get("ownerReferences") == before["metadata"].get("ownerReferences")


def test_refusal_by_the_policy_can_be_told_from_an_invalid_secret(
    existing: Callable[..., str], operator_api: Any, namespace: str
) -> None:
    refused = operator_api("PATCH", existing(secret()), {}, content_type=MERGE).body
    invalid = operator_api("POST", f"/api/v1/namespaces/{namespace}/secrets", secret(OURS, name="-")).body
    assert (refused["code"], invalid["code"]) == (422, 422)
    assert [set(cause) for cause in refused["details"]["causes"]] == [{"message"}]
    assert all({"reason", "field"} <= set(cause) for cause in invalid["details"]["causes"])


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("item", OWN.values(), ids=OWN)
def test_own_secret_can_be_changed(
    item: dict[str, Any], request_: tuple[str, object, str], existing: Callable[..., str], operator_api: Any
) -> None:
    content_type, body, accept = request_
    answer = operator_api("PATCH", existing(item), body, content_type=content_type, accept=accept)
    assert answer.code == 200, answer.text
    assert accept != METADATA_ONLY or CONTENT not in answer.text


def test_metadata_of_an_own_secret_comes_without_its_data(existing: Callable[..., str], operator_api: Any) -> None:
    answer = operator_api("PATCH", existing(secret(OURS, **KEPT)), {}, content_type=MERGE, accept=METADATA_ONLY)
    assert answer.body["kind"] == "PartialObjectMetadata"
    assert answer.body["metadata"]["ownerReferences"] == [OURS]


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (secret(OURS), 201),
        (secret(CONFIG_MAP, OURS), 201),
        (secret(OURS, kind="kubernetes.io/dockerconfigjson") | {"data": {".dockerconfigjson": "e30="}}, 201),
        (secret(), 422),
        (secret(annotations=ADOPT), 422),
        (secret(OURS | {"controller": False}), 422),
        (secret(OURS | {"name": "other"}), 422),
        (secret(CONFIG_MAP | {"controller": True}), 422),
        (secret(name="strongroom-serving-ca"), 422),
        (
            secret(OURS, kind="kubernetes.io/service-account-token")
            | {
                "metadata": {
                    "name": "s",
                    "ownerReferences": [OURS],
                    "annotations": {"kubernetes.io/service-account.name": "default"},
                }
            },
            422,
        ),
        (secret(OURS, kind="bootstrap.kubernetes.io/token"), 422),
    ],
)
def test_new_secret_is_controlled_by_an_encrypted_secret_and_carries_no_authority(
    item: dict[str, Any], code: int, operator_api: Any, namespace: str
) -> None:
    answer = operator_api("POST", f"/api/v1/namespaces/{namespace}/secrets?dryRun=All", item)
    assert answer.code == code, answer.text
    assert code == 201 or POLICY in answer.body["message"]
    applied = operator_api(
        *("PATCH", f"/api/v1/namespaces/{namespace}/secrets/{item['metadata']['name']}?dryRun=All&fieldManager=s"),
        item,
        content_type=APPLY,
    )
    assert applied.code == code, applied.text


def test_token_of_a_service_account_is_never_touched(
    existing: Callable[..., str], operator_api: Any, kubectl: Kubectl, namespace: str
) -> None:
    wait_for(lambda: kubectl.json("get", "serviceaccounts", "-n", namespace)["items"], 30, "the ServiceAccount default")
    annotations = ADOPT | {"kubernetes.io/service-account.name": "default"}
    path = existing(secret(kind="kubernetes.io/service-account-token", annotations=annotations) | {"data": {}})
    answer = operator_api("PATCH", path, {}, content_type=MERGE)
    assert (answer.code, POLICY in answer.body["message"]) == (422, True)
    assert "carry authority" in answer.body["message"]


def test_own_certificate_authority_can_be_made_and_changed_in_the_operators_namespace_only(operator_api: Any) -> None:
    # The right to update it comes with the crypto API, which is off here; the policy decides before.
    own = secret(name="strongroom-serving-ca", kind="kubernetes.io/tls") | {"data": {"tls.crt": "", "tls.key": ""}}
    path = "/api/v1/namespaces/strongroom/secrets"
    assert operator_api("POST", f"{path}?dryRun=All", own).code == 201
    assert operator_api("POST", f"{path}?dryRun=All", own | {"metadata": {"name": "another"}}).code == 422
    token = secret(
        name="strongroom-serving-ca",
        kind="kubernetes.io/service-account-token",
        annotations={"kubernetes.io/service-account.name": "strongroom"},
    )
    assert operator_api("POST", f"{path}?dryRun=All", token | {"data": {}}).code == 422


def test_pin_is_neither_changed_nor_shown(operator_api: Any, kubectl: Kubectl) -> None:
    kubectl.apply(secret(name="strongroom-pin"), namespace="strongroom")
    path = "/api/v1/namespaces/strongroom/secrets/strongroom-pin"
    assert operator_api("GET", path).code == 403
    answer = operator_api("PATCH", path, {}, content_type=MERGE)
    assert (answer.code, CONTENT in answer.text) == (422, False)
    kubectl("delete", "secret", "strongroom-pin", "-n", "strongroom")


def test_others_are_not_restricted(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(secret(name="mine"), namespace=namespace)
    kubectl("label", "secret", "mine", "-n", namespace, "a=b")


def test_status_needs_no_permission_on_the_key(operator_api: Any, kubectl: Kubectl, namespace: str) -> None:
    item = {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db"},
        "spec": {"keyRef": {"name": "prod"}, "scope": "Strict", "encryptedData": {"a": "U1IxAV8A"}},
    }
    kubectl.apply(item, namespace=namespace)
    path = f"/apis/kms.strongroom.dev/v1alpha1/namespaces/{namespace}/encryptedsecrets/db"
    patched = operator_api("PATCH", f"{path}/status", {"status": {"secretName": "db"}}, content_type=MERGE)
    assert (patched.code, patched.body["status"]["secretName"]) == (200, "db")
    assert operator_api("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE).code == 403
