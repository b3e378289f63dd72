# SPDX-License-Identifier: Apache-2.0
"""The Secret follows the spec: what is added arrives, what is removed leaves, what others put there stays."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.waiting import wait_for
from tests.conftest import OwnOperator
from tests.operator.api import Api, Refused
from tests.operator.tenant import REACTION_SECONDS, Tenant, condition, decoded, refusal
from tests.operator.tenant import annotations as annotations_of

pytestmark = pytest.mark.cluster

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/encryptedsecrets.kms.strongroom.dev"
OURS = {"strongroom.dev/managed": "true", "app.kubernetes.io/managed-by": "strongroom"}


def template(labels: dict[str, str], annotations: dict[str, str]) -> dict[str, Any]:
    """Empty maps left out: server-side apply makes null of a map that is emptied."""
    metadata = {key: value for key, value in (("labels", labels), ("annotations", annotations)) if value}
    return {"type": "Opaque"} | ({"metadata": metadata} if metadata else {})


@pytest.mark.usefixtures("operator")
def test_data_keys_follow_the_spec(tenant: Tenant) -> None:
    for values in ({"a": b"1", "b": b"2"}, {"b": b"2"}, {"b": b"2", "c": b"3"}, {"d": b""}, {"a": b"changed"}):
        assert decoded(tenant.deliver("db", values)) == values


@pytest.mark.usefixtures("operator")
def test_unchanged_values_keep_their_secret_in_place(tenant: Tenant) -> None:
    first = tenant.deliver("db", {"a": b"1"})
    second = tenant.deliver("db", {"a": b"1", "b": b"2"})
    assert second["metadata"]["uid"] == first["metadata"]["uid"]


@pytest.mark.usefixtures("operator")
def test_labels_and_annotations_follow_the_template(tenant: Tenant) -> None:
    steps: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"a": "1", "b": "2"}, {"x/y": "1", "note": "ünïcode\n"}),
        ({"b": "3"}, {"x/y": "2"}),
        ({}, {}),
    ]
    for labels, annotations in steps:
        metadata = tenant.deliver("db", {"k": b"v"}, template=template(labels, annotations))["metadata"]
        assert metadata["labels"] == labels | OURS
        assert annotations_of(metadata) == annotations


@pytest.mark.usefixtures("operator")
def test_labels_of_others_stay_through_updates(tenant: Tenant) -> None:
    tenant.deliver("db", {"k": b"v"}, template=template({"ours": "1"}, {"ours": "1"}))
    theirs = {"metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"}}}
    tenant.api.patch(tenant.secret_path("db"), theirs, manager="backup-tool")
    for values, labels in (({"k": b"2"}, {"ours": "2"}), ({"other": b"3"}, {})):
        metadata = tenant.deliver("db", values, template=template(labels, labels))["metadata"]
        assert metadata["labels"] == labels | {"theirs": "1"} | OURS
        assert annotations_of(metadata) == labels | {"theirs": "1"}


@pytest.mark.usefixtures("operator")
def test_secret_becomes_immutable_when_asked(tenant: Tenant) -> None:
    assert "immutable" not in tenant.deliver("db", {"k": b"v"})
    assert tenant.deliver("db", {"k": b"v"}, template={"immutable": True})["immutable"] is True


@pytest.mark.usefixtures("operator")
def test_service_account_decides_about_permission(tenant: Tenant) -> None:
    tenant.seal("db", {"k": b"v"}, serviceAccountName="deployer")
    item = tenant.wait_reason("db", "AccessDenied")
    assert f"system:serviceaccount:{tenant.namespace}:deployer may not use" in condition(item, "Ready")["message"]
    tenant.grant("deployer")
    tenant.wait_ready("db")
    assert tenant.values("db") == {"k": b"v"}


def test_denied_labels_and_annotations_are_refused_by_configuration(own_operator: OwnOperator, tenant: Tenant) -> None:
    """A replicator's annotation would copy the plaintext elsewhere."""
    own_operator(overrides={"secrets": {"deniedMetadata": ["replicator\\.example/.*"]}})
    tenant.deliver(
        "fine", {"k": b"v"}, template=template({"replicator.example": "1"}, {"my.replicator.example/to": "x"})
    )
    tenant.seal("copied", {"k": b"v"}, template=template({}, {"replicator.example/to": "other"}))
    item = tenant.wait_reason("copied", "TargetRejected")
    assert "spec.template.metadata.annotations holds 'replicator.example/to'" in condition(item, "Ready")["message"]
    assert tenant.secret("copied") is None


INVALID_METADATA: dict[str, dict[str, Any]] = {
    "label-value": template({"team": "not a label"}, {}),
    "label-key": template({"a/b/c": "1"}, {}),
    "annotation-key": template({}, {"not a key": "1"}),
    "annotations-too-large": template({}, {f"a{n}": "x" * 8192 for n in range(33)}),
}


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("case", INVALID_METADATA)
def test_metadata_that_kubernetes_refuses_keeps_the_secret_and_heals(tenant: Tenant, case: str) -> None:
    before = tenant.deliver("db", {"k": b"v"})
    tenant.seal("db", {"k": b"v"}, template=INVALID_METADATA[case])
    item = tenant.wait_reason("db", "TargetRejected")
    assert "metadata." in condition(item, "Ready")["message"]
    assert tenant.secret("db") == before
    tenant.deliver("db", {"k": b"2"})
    assert tenant.values("db") == {"k": b"2"}


FORBIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    "service-account-token": ({"template": {"type": "kubernetes.io/service-account-token"}}, "ForbiddenSecretType"),
    "bootstrap-token": ({"template": {"type": "bootstrap.kubernetes.io/token"}}, "ForbiddenSecretType"),
    "adoption": ({"template": template({}, {"strongroom.dev/adopt": "true"})}, "UnsupportedFormat"),
    "our-label": ({"template": template({"strongroom.dev/managed": "false"}, {})}, "UnsupportedFormat"),
    "below-our-domain": ({"template": template({"x.strongroom.dev/y": ""}, {})}, "UnsupportedFormat"),
    "managed-by": ({"template": template({"app.kubernetes.io/managed-by": "Helm"}, {})}, "UnsupportedFormat"),
    "unknown-scope": ({"scope": "Galaxy"}, "UnsupportedFormat"),
    "context-too-large": ({"encryptionContext": {"k": "v" * 1024}}, "InvalidEncryptionContext"),
    "too-many-context-pairs": ({"encryptionContext": {f"k{n}": "" for n in range(17)}}, "InvalidEncryptionContext"),
}
FORBIDDEN_VALUES = {
    "4097-bytes": "PlaintextTooLarge",
    "other-magic": "UnsupportedFormat",
    "not-base64": "InvalidCiphertext",
    "empty-text": "UnsupportedFormat",
}


def forbidden_value(tenant: Tenant, case: str) -> str:
    good = tenant.encrypt(case, {"k": b"v" * 4094})["k"]
    match case:
        case "4097-bytes":
            return good + "AAAA"  # three bytes more
        case "other-magic":
            return "U1Iy" + good[4:]
        case "not-base64":
            return good[:-1] + "*"
        case "empty-text":
            return ""
    raise AssertionError(case)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("case", FORBIDDEN)
def test_forbidden_spec_is_refused_at_admission(tenant: Tenant, case: str) -> None:
    manifest = tenant.manifest("db", tenant.encrypt("db", {"k": b"v"}), **FORBIDDEN[case][0])
    refused = refusal(tenant.api, "POST", tenant.path("db").rpartition("/")[0], manifest)
    assert (refused.code, refused.reason) == (422, "Invalid")


def without_rules(schema: Any) -> Any:
    """The schema with its shape alone."""
    if isinstance(schema, list):
        return [without_rules(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rules = {"x-kubernetes-validations", "pattern", "enum", "maxLength", "maxProperties", "minLength"}
    return {key: without_rules(value) for key, value in schema.items() if key not in rules}


@pytest.fixture
def lenient_schema(admin: Api) -> Iterator[None]:
    """The CRD as it would be if somebody had removed its rules."""
    strict = admin("GET", CRD)["spec"]["versions"]
    lenient = copy.deepcopy(strict)
    properties = lenient[0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"] = without_rules(properties["spec"])
    admin.patch(CRD, {"spec": {"versions": lenient}})
    yield
    admin.patch(CRD, {"spec": {"versions": strict}})


@pytest.mark.usefixtures("operator", "lenient_schema")
def test_operator_refuses_by_itself_what_the_crd_would_have_refused(tenant: Tenant) -> None:
    expected = {case: reason for case, (_, reason) in FORBIDDEN.items()} | FORBIDDEN_VALUES
    good = tenant.encrypt("any", {"k": b"v"}, scope="Strict")
    manifests = [tenant.manifest(case, good, **spec) for case, (spec, _) in FORBIDDEN.items()]
    manifests += [tenant.manifest(case, {"k": forbidden_value(tenant, case)}) for case in FORBIDDEN_VALUES]

    def accepted(manifest: dict[str, Any]) -> bool:
        """The API server serves the changed schema a moment later."""
        try:
            tenant.api.apply(tenant.path(manifest["metadata"]["name"]), manifest)
        except Refused as error:
            if error.code != 422:
                raise
            return False
        return True

    for manifest in manifests:
        wait_for(lambda manifest=manifest: accepted(manifest), REACTION_SECONDS, json.dumps(manifest)[:200])
    for case, reason in expected.items():
        item = tenant.wait_reason(case, reason)
        assert condition(item, "Stalled")["status"] == "True", case
    assert tenant.api("GET", tenant.secret_path("").rstrip("/"))["items"] == []
