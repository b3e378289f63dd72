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
OTHER = base64.b64encode(b"something else").decode()
ADOPT = {"strongroom.dev/adopt": "true"}
HELM_RELEASE = "sh.helm.release.v1.strongroom.v2"

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

PATCHES: dict[str, tuple[str, object]] = {
    "empty merge patch": (MERGE, {}),
    "empty JSON patch": (JSON_PATCH, []),
    "empty strategic patch": (STRATEGIC, {}),
    "merge patch of a wrong type": (MERGE, {"immutable": "x"}),
    "JSON patch of a wrong type": (JSON_PATCH, [{"op": "add", "path": "/immutable", "value": "x"}]),
    "JSON patch that copies a value": (JSON_PATCH, [{"op": "copy", "from": "/data/password", "path": "/type"}]),
    "JSON patch that tests a value": (JSON_PATCH, [{"op": "test", "path": "/data/password", "value": CONTENT}]),
    "server-side apply": (APPLY, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
}


@pytest.mark.parametrize("item", [secret(), secret(OURS, **KEPT)], ids=["foreign", "own"])
@pytest.mark.parametrize(("content_type", "body"), PATCHES.values(), ids=PATCHES)
def test_no_secret_is_patched(
    content_type: str, body: object, item: dict[str, Any], existing: Callable[..., str], operator_api: Any
) -> None:
    answer = operator_api("PATCH", f"{existing(item)}?fieldManager=strongroom", body, content_type=content_type)
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert POLICY not in answer.text
    assert CONTENT not in answer.text


@pytest.fixture
def may_patch(kubectl: Kubectl, namespace: str, operator_api: Any) -> None:
    """What the chart withholds: the operator may patch Secrets of the namespace."""
    kubectl("create", "role", "patch-secrets", "-n", namespace, "--verb=patch", "--resource=secrets")
    account = "--serviceaccount=strongroom:strongroom"
    kubectl("create", "rolebinding", "patch-secrets", "-n", namespace, "--role=patch-secrets", account)
    path = f"/api/v1/namespaces/{namespace}/secrets/none"
    wait_for(lambda: operator_api("PATCH", path, {}, content_type=MERGE).code == 404, 30, "the permission to patch")


@pytest.mark.parametrize("patch", ["merge patch of a wrong type", "JSON patch of a wrong type"])
def test_permission_to_patch_would_be_permission_to_read(
    patch: str, may_patch: None, existing: Callable[..., str], operator_api: Any
) -> None:
    # What docs/decisions/0005-secrets-are-replaced-never-patched.md rests on: this answer is made before the policy is
    # asked.
    content_type, body = PATCHES[patch]
    answer = operator_api("PATCH", existing(secret()), body, content_type=content_type)
    assert answer.code in (400, 422)
    assert POLICY not in answer.text
    assert CONTENT in answer.text


def replacements(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Whole Secrets to put in the place of `item`, none of which holds its content."""
    named = {"name": item["metadata"]["name"]}
    empty = {"apiVersion": "v1", "kind": "Secret", "metadata": named, "type": item["type"]}
    return {
        "the same without data": item | {"data": {}},
        "nothing": empty,
        "another value": item | {"data": {"password": OTHER}},
        "a value that is no base64": item | {"data": {"password": "?"}},
        "a value that is no text": item | {"data": {"password": 1}},
        "another type": empty | {"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}},
        "another type without its data": empty | {"type": "kubernetes.io/tls"},
        "a field of a wrong type": empty | {"immutable": "x"},
        "metadata of a wrong type": empty | {"metadata": named | {"labels": "x"}},
        "an unknown field": empty | {"unknown": "x"},
        "another kind": empty | {"kind": "ConfigMap"},
        "another uid": empty | {"metadata": named | {"uid": OURS["uid"]}},
        "another version": empty | {"metadata": named | {"resourceVersion": "1"}},
        "another name": empty | {"metadata": {"name": "other"}},
        "ownership": empty | {"metadata": named | {"ownerReferences": [OURS]}, "data": {"password": OTHER}},
        "adoption": empty | {"metadata": named | {"annotations": ADOPT}, "data": {"password": OTHER}},
    }


WELL_FORMED = ("the same without data", "nothing", "another value", "an unknown field", "ownership", "adoption")


@pytest.mark.parametrize("item", FOREIGN.values(), ids=FOREIGN)
def test_foreign_secret_is_neither_replaced_nor_shown(
    item: dict[str, Any], existing: Callable[..., str], operator_api: Any, kubectl: Kubectl, namespace: str
) -> None:
    path = existing(item)
    before = kubectl.json("get", "secret", "s", "-n", namespace)
    for name, body in replacements(item).items():
        for query in ("", "?dryRun=All", "?fieldValidation=Strict", "?fieldManager=strongroom"):
            answer = operator_api("PUT", path + query, body)
            assert answer.code in (400, 409, 422), f"{name}: {answer.text}"
            assert CONTENT not in answer.text, name
            if name in WELL_FORMED and not (name == "an unknown field" and "Strict" in query):
                assert (answer.code, answer.body["reason"]) == (422, "Invalid"), f"{name}: {answer.text}"
                assert POLICY in answer.body["message"]
                assert f'Secret "{namespace}/s" is not controlled by an EncryptedSecret' in answer.body["message"]
    taken = operator_api("POST", path.rpartition("/")[0], secret(OURS) | {"data": {}})
    assert (taken.code, CONTENT in taken.text) == (409, False)
    assert kubectl.json("get", "secret", "s", "-n", namespace) == before


def test_refusal_by_the_policy_can_be_told_from_an_invalid_secret(
    existing: Callable[..., str], operator_api: Any, namespace: str
) -> None:
    refused = operator_api("PUT", existing(secret()), secret()).body
    invalid = operator_api("POST", f"/api/v1/namespaces/{namespace}/secrets", secret(OURS, name="-")).body
    assert (refused["code"], invalid["code"]) == (422, 422)
    assert [set(cause) for cause in refused["details"]["causes"]] == [{"message"}]
    assert all({"reason", "field"} <= set(cause) for cause in invalid["details"]["causes"])


@pytest.mark.parametrize("item", OWN.values(), ids=OWN)
def test_own_secret_can_be_replaced_and_answers_with_metadata_alone(
    item: dict[str, Any], existing: Callable[..., str], operator_api: Any, kubectl: Kubectl, namespace: str
) -> None:
    wanted = secret(OURS, **KEPT) | {"data": {"password": OTHER}}
    answer = operator_api("PUT", existing(item), wanted, accept=METADATA_ONLY)
    assert answer.code == 200, answer.text
    assert answer.body["kind"] == "PartialObjectMetadata"
    assert answer.body["metadata"]["ownerReferences"] == [OURS]
    assert OTHER not in answer.text
    assert kubectl.json("get", "secret", "s", "-n", namespace)["data"] == {"password": OTHER}


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
        (secret(OURS, kind="helm.sh/release.v1"), 422),
        (secret(OURS | {"name": HELM_RELEASE}, name=HELM_RELEASE), 422),
        (secret(OURS, labels={"owner": "helm"}), 422),
        (secret(OURS, labels={"owner": "shop"}), 201),
    ],
)
def test_new_secret_is_controlled_by_an_encrypted_secret_and_carries_no_authority(
    item: dict[str, Any], code: int, operator_api: Any, namespace: str
) -> None:
    answer = operator_api("POST", f"/api/v1/namespaces/{namespace}/secrets?dryRun=All", item)
    assert answer.code == code, answer.text
    assert code == 201 or POLICY in answer.body["message"]


def test_token_of_a_service_account_is_never_touched(
    existing: Callable[..., str], operator_api: Any, kubectl: Kubectl, namespace: str
) -> None:
    wait_for(lambda: kubectl.json("get", "serviceaccounts", "-n", namespace)["items"], 30, "the ServiceAccount default")
    annotations = ADOPT | {"kubernetes.io/service-account.name": "default"}
    path = existing(secret(kind="kubernetes.io/service-account-token", annotations=annotations) | {"data": {}})
    taken = secret(OURS, kind="kubernetes.io/service-account-token", annotations=annotations) | {"data": {}}
    answer = operator_api("PUT", path, taken)
    assert (answer.code, POLICY in answer.body["message"]) == (422, True)
    assert "carry authority" in answer.body["message"]


def test_record_of_a_helm_release_is_not_made_from_an_own_secret(
    existing: Callable[..., str], operator_api: Any
) -> None:
    answer = operator_api("PUT", existing(secret(OURS, **KEPT)), secret(OURS, labels={"owner": "helm"}, **KEPT))
    assert (answer.code, POLICY in answer.body["message"]) == (422, True)
    assert "Helm release" in answer.body["message"]


def test_own_certificate_authority_can_be_made_and_changed_in_the_operators_namespace_only(
    operator_api: Any, kubectl: Kubectl
) -> None:
    kubectl("delete", "secret", "strongroom-serving-ca", "-n", "strongroom", "--ignore-not-found")
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
    for body in replacements(secret(name="strongroom-pin")).values():
        answer = operator_api("PUT", path, body)
        assert answer.code in (400, 409, 422)
        assert CONTENT not in answer.text
    assert kubectl.json("get", "secret", "strongroom-pin", "-n", "strongroom")["data"] == {"password": CONTENT}
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
