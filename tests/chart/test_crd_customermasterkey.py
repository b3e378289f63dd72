# SPDX-License-Identifier: Apache-2.0
"""What the API server makes of a CustomerMasterKey."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.installation import Installation
from testbed.kubectl import Kubectl, KubectlError

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("installed")]

KEY_ID = "5f0c1d8e-1b2c-4d3e-8f90-a1b2c3d4e5f6"


def master_key(name: str = "crd-test", **spec: Any) -> dict[str, Any]:
    fields = {"hsm": "default", "keySpec": "AES_256", "state": "Enabled"} | spec
    return {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "CustomerMasterKey",
        "metadata": {"name": name},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def create(kubectl: Kubectl, key: dict[str, Any], *options: str) -> Any:
    return kubectl.json("create", *options, "-f", "-", stdin=json.dumps(key))


@pytest.fixture
def existing(kubectl: Kubectl, installed: Installation) -> Iterator[str]:
    """Name of a key that names material."""
    name = "crd-existing"
    create(kubectl, master_key(name, keyId=KEY_ID))
    yield name
    kubectl("delete", "customermasterkey", name)


@pytest.mark.parametrize(
    "key",
    [
        master_key(),
        master_key("a" * 63),
        master_key("a.b"),
        master_key(description="", keyId=KEY_ID),
        master_key(description="ä" * 8192),
        master_key(keySpec="RSA_3072"),
        master_key(keySpec="SM4_OR_WHATEVER_COMES_2"),
        master_key(state="Disabled"),
        master_key(state="Archived"),
    ],
    ids=lambda key: f"{key['metadata']['name'][:8]}-{key['spec']['keySpec'][:8]}-{key['spec']['state']}",
)
def test_valid_key_is_accepted(key: dict[str, Any], kubectl: Kubectl) -> None:
    create(kubectl, key, "--dry-run=server")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (master_key("a" * 64), "the name of a CustomerMasterKey may be at most 63 characters long"),
        (master_key(hsm=None), "spec.hsm: Required value"),
        (master_key(keySpec=None), "spec.keySpec: Required value"),
        (master_key(state=None), "spec.state: Required value"),
        (master_key(hsm=""), "spec.hsm"),
        (master_key(hsm="Default"), "spec.hsm"),
        (master_key(hsm="a" * 64), "spec.hsm"),
        (master_key(hsm="a.b"), "spec.hsm"),
        (master_key(keySpec="aes"), "spec.keySpec"),
        (master_key(keySpec="A" * 65), "spec.keySpec"),
        (master_key(keySpec=""), "spec.keySpec"),
        (master_key(state="PendingDeletion"), 'supported values: "Enabled", "Disabled", "Archived"'),
        (master_key(keyId=KEY_ID.upper()), "spec.keyId"),
        (master_key(keyId=KEY_ID[:-1]), "spec.keyId"),
        (master_key(keyId=KEY_ID + "\n"), "spec.keyId"),
        (master_key(keyId=""), "spec.keyId"),
        (master_key(description="a" * 8193), "spec.description: Too long"),
        ({**master_key(), "spec": None}, "spec: Required value"),
        (master_key(keyMaterial="c2VjcmV0"), 'unknown field "spec.keyMaterial"'),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_invalid_key_is_refused_with_its_place(key: dict[str, Any], message: str, kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError) as refused:
        create(kubectl, key, "--dry-run=server")
    assert message in refused.value.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hsm": "other"}, 'spec.hsm: Invalid value: "other": hsm is immutable'),
        ({"keySpec": "RSA_3072"}, 'spec.keySpec: Invalid value: "RSA_3072": keySpec is immutable'),
        ({"keyId": KEY_ID.replace("5f", "60")}, "keyId cannot be added, changed or removed after creation"),
        ({"keyId": None}, "keyId cannot be added, changed or removed after creation"),
    ],
    ids=str,
)
def test_what_names_the_material_cannot_change(
    change: dict[str, Any], message: str, existing: str, kubectl: Kubectl
) -> None:
    with pytest.raises(KubectlError) as refused:
        kubectl("patch", "customermasterkey", existing, "--type=merge", "--patch", json.dumps({"spec": change}))
    assert message in refused.value.stderr


def test_material_cannot_be_named_afterwards(kubectl: Kubectl) -> None:
    create(kubectl, master_key("crd-generated"))
    with pytest.raises(KubectlError, match="keyId cannot be added"):
        kubectl("patch", "cmk", "crd-generated", "--type=merge", "-p", json.dumps({"spec": {"keyId": KEY_ID}}))
    kubectl("delete", "cmk", "crd-generated")


def test_state_and_description_can_change(existing: str, kubectl: Kubectl) -> None:
    change = {"spec": {"state": "Archived", "description": "retired"}}
    changed = kubectl.json("patch", "cmk", existing, "--type=merge", "--patch", json.dumps(change))
    assert changed["spec"] | change["spec"] == changed["spec"]


def test_fresh_key_is_not_healthy_and_its_status_cannot_be_written_along(kubectl: Kubectl) -> None:
    forged = master_key() | {"status": {"observedGeneration": 1, "state": "Enabled"}}
    assert create(kubectl, forged, "--dry-run=server")["status"] == {"observedGeneration": -1}


def test_status_of_an_rsa_key_is_kept_whole(existing: str, kubectl: Kubectl) -> None:
    status = {
        "publicKey": "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n",
        "oaepHash": "sha1",
        "versions": [
            {
                "version": 1,
                "state": "Primary",
                "createdAt": "2026-11-23T10:00:00Z",
                "algorithm": "RSA_OAEP_SHA1_AES_256_GCM",
            }
        ],
    }
    patch = json.dumps({"status": status})
    changed = kubectl.json("patch", "cmk", existing, "--subresource=status", "--type=merge", "--patch", patch)
    assert changed["status"] | status == changed["status"]


def test_table_and_short_names_tell_the_story(existing: str, kubectl: Kubectl) -> None:
    when = "2026-11-23T10:00:00Z"
    condition = {"type": "Ready", "status": "True", "reason": "KeyReady", "message": "", "lastTransitionTime": when}
    other = condition | {"type": "AAA", "status": "False", "reason": "Other"}
    status = {"status": {"state": "Enabled", "currentVersion": 3, "keyId": KEY_ID, "conditions": [other, condition]}}
    kubectl("patch", "cmk", existing, "--subresource=status", "--type=merge", "--patch", json.dumps(status))
    header, row = kubectl("get", "cmk", existing).splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "STATE", "VERSION", "AGE"]
    assert row.split()[:5] == [existing, "True", "KeyReady", "Enabled", "3"]
    wide = kubectl("get", "cmk", existing, "-o", "wide")
    assert {KEY_ID, "AES_256"} <= set(wide.split())
    assert existing in kubectl("get", "strongroom", "--all-namespaces")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"keyId": KEY_ID.upper()}, "status.keyId"),
        ({"keyId": ""}, "status.keyId"),
        (
            {"versions": [{"version": 1, "createdAt": "2026-11-23T10:00:00Z"}]},
            "status.versions[0].state: Required value",
        ),
        ({"versions": [{"version": 1, "state": "Primary"}]}, "status.versions[0].createdAt: Required value"),
    ],
    ids=str,
)
def test_status_that_names_no_material_is_refused(
    status: dict[str, Any], message: str, existing: str, kubectl: Kubectl
) -> None:
    with pytest.raises(KubectlError) as refused:
        kubectl("patch", "cmk", existing, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    assert message in refused.value.stderr
