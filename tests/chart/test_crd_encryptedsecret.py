# SPDX-License-Identifier: Apache-2.0
"""What the API server makes of an EncryptedSecret: everything wrong that can be told without the key."""

import base64
import json
import uuid
from typing import Any

import pytest

from strongroom.envelope import format as envelope
from strongroom.model import encryptedsecret
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from testbed.kubectl import Kubectl, KubectlError

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("installed")]

TOO_LARGE = "a value holds more than 4096 bytes of plaintext"
DATA_KEY = "a data key of a Secret consists of 1 to 253 letters"


def blob(size: int, first: int = 0x5F) -> str:
    """A well-formed AES blob of a plaintext of `size` bytes; the key id starts with the byte `first`."""
    key_id = KeyId(uuid.UUID(bytes=bytes([first, *range(15)])))
    key = KeyVersionRef(key_id, KeyVersion(1))
    body = bytes(size + 16)
    return envelope.Blob(Algorithm.AES_256_GCM, key, nonce=bytes(12), body=body).serialise()


def other_blob(algorithm: int, length: int) -> str:
    """`length` bytes that claim another algorithm."""
    return base64.b64encode((envelope.MAGIC + bytes([algorithm])).ljust(length, b"\xff")).decode()


VALUE = blob(8)


def encrypted_secret(**spec: Any) -> dict[str, Any]:
    fields = {"keyRef": {"name": "prod"}, "scope": "Strict", "encryptedData": {"password": VALUE}} | spec
    return {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db"},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def template(**fields: Any) -> dict[str, Any]:
    return encrypted_secret(template=fields)


def values(*texts: str) -> dict[str, Any]:
    return encrypted_secret(encryptedData={f"k{n}": text for n, text in enumerate(texts)})


def create(kubectl: Kubectl, namespace: str, item: dict[str, Any], *options: str) -> Any:
    arguments = ("create", "--dry-run=server", "--namespace", namespace, *options)
    return kubectl.json(*arguments, "-f", "-", stdin=json.dumps(item))


GOOD = {
    "the least": encrypted_secret(),
    "everything": encrypted_secret(
        scope="Cluster",
        encryptionContext={"team": "payments"},
        serviceAccountName="a.b-c",
        suspend=True,
        template={
            "type": "kubernetes.io/tls",
            "immutable": True,
            "metadata": {"labels": {"app": "db"}, "annotations": {"example.org/a": "b" * 8192}},
        },
    ),
    "sizes up to the limit": values(*(blob(size) for size in (0, 1, 2, 4093, 4094, 4095, 4096))),
    "the limit under 64 key ids": values(*(blob(4096, first) for first in range(0, 256, 4))),
    "64 full values": values(*[blob(4096)] * 64),
    "other algorithms are longer": values(
        *(other_blob(algorithm, 6216 // 4 * 3) for algorithm in (2, 3, 4, 5, 6, 7, 16, 64, 255))
    ),
    "16 pairs of context": encrypted_secret(encryptionContext={f"k{n}": "v" for n in range(16)}),
    "1024 bytes of context": encrypted_secret(encryptionContext={"é": "é" * 511}),
    "empty context": encrypted_secret(encryptionContext={}),
    "key with dots": encrypted_secret(keyRef={"name": "prod.eu"}),
    "look-alike of the reserved domain": template(
        metadata={"labels": {"notstrongroom.dev/a": "b", "strongroom.dev.example.org/a": "b"}}
    ),
}

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no spec": ({**encrypted_secret(), "spec": None}, "spec: Required value"),
    "no key": (encrypted_secret(keyRef=None), "spec.keyRef: Required value"),
    "no key name": (encrypted_secret(keyRef={}), "spec.keyRef.name: Required value"),
    "empty key name": (encrypted_secret(keyRef={"name": ""}), "spec.keyRef.name"),
    "key name that would break a command": (encrypted_secret(keyRef={"name": "a'; id #"}), "spec.keyRef.name"),
    "key name too long": (encrypted_secret(keyRef={"name": "a" * 64}), "spec.keyRef.name: Too long"),
    "no scope": (encrypted_secret(scope=None), "spec.scope: Required value"),
    "unknown scope": (encrypted_secret(scope="strict"), 'supported values: "Strict", "Namespace", "Cluster"'),
    "no data": (encrypted_secret(encryptedData=None), "spec.encryptedData: Required value"),
    "empty data": (encrypted_secret(encryptedData={}), "at least 1 properties"),
    "65 values": (values(*[VALUE] * 65), "must have at most 64 items"),
    "value that is a number": (encrypted_secret(encryptedData={"a": 1}), "must be of type string"),
    "plaintext": (values("hunter2"), "spec.encryptedData.k0"),
    "base64 of something else": (values(base64.b64encode(b"hunter2").decode()), "spec.encryptedData.k0"),
    "empty value": (values(""), "spec.encryptedData.k0"),
    "URL-safe base64": (values(VALUE[:40] + "-_" + VALUE[42:]), "spec.encryptedData.k0"),
    "line break within": (values(VALUE[:40] + "\n" + VALUE[40:]), "spec.encryptedData.k0"),
    "line break at the end": (values(VALUE + "\n"), "spec.encryptedData.k0"),
    "padding within": (values(VALUE[:40] + "=" + VALUE[40:]), "spec.encryptedData.k0"),
    "three padding characters": (values(VALUE.rstrip("=") + "==="), "spec.encryptedData.k0"),
    "4097 bytes": (values(VALUE, blob(4097)), TOO_LARGE),
    "4098 bytes": (values(blob(4098)), TOO_LARGE),
    "4099 bytes": (values(blob(4099)), TOO_LARGE),
    "5000 bytes": (values(blob(4600)), TOO_LARGE),
    "longer than any algorithm": (values(other_blob(2, 6219 // 4 * 3 + 3)), "Too long"),
    "17 pairs of context": (
        encrypted_secret(encryptionContext={f"k{n}": "v" for n in range(17)}),
        "must have at most 16 items",
    ),
    "1025 bytes of context": (
        encrypted_secret(encryptionContext={"é": "é" * 511 + "e"}),
        "at most 1024 bytes in all, in UTF-8",
    ),
    "empty key of context": (
        encrypted_secret(encryptionContext={"": "v"}),
        "a key of encryptionContext may not be empty",
    ),
    "context that is a number": (encrypted_secret(encryptionContext={"a": 1}), "must be of type string"),
    "ServiceAccount of another namespace": (
        encrypted_secret(serviceAccountName="system:serviceaccount:a:b"),
        "spec.serviceAccountName",
    ),
    "empty ServiceAccount": (encrypted_secret(serviceAccountName=""), "spec.serviceAccountName"),
    "token of a ServiceAccount": (template(type="kubernetes.io/service-account-token"), "carry authority of their own"),
    "bootstrap token": (template(type="bootstrap.kubernetes.io/token"), "carry authority of their own"),
    "record of a Helm release": (template(type="helm.sh/release.v1"), "records of Helm"),
    "empty type": (template(type=""), "spec.template.type"),
    "our own label": (template(metadata={"labels": {"strongroom.dev/managed": "false"}}), "set by the operator alone"),
    "label below our domain": (
        template(metadata={"labels": {"kms.strongroom.dev/a": "b"}}),
        "labels under strongroom.dev",
    ),
    "managed-by as a label": (
        template(metadata={"labels": {"app.kubernetes.io/managed-by": "me"}}),
        "labels under strongroom.dev and app.kubernetes.io/managed-by",
    ),
    "our own annotation": (
        template(metadata={"annotations": {"strongroom.dev/adopt": "true"}}),
        "annotations under strongroom.dev",
    ),
    "annotation below our domain": (
        template(metadata={"annotations": {"a.strongroom.dev/a": "b"}}),
        "annotations under strongroom.dev",
    ),
    "label too long": (template(metadata={"labels": {"a": "b" * 64}}), "Too long"),
    "plaintext beside the ciphertext": (encrypted_secret(data={"a": "aHVudGVyMg=="}), 'unknown field "spec.data"'),
    "name for the Secret": (template(metadata={"name": "x"}), 'unknown field "spec.template.metadata.name"'),
}


@pytest.mark.parametrize("item", GOOD.values(), ids=GOOD)
def test_valid_object_is_accepted(item: dict[str, Any], kubectl: Kubectl, namespace: str) -> None:
    create(kubectl, namespace, item)


@pytest.mark.parametrize(("item", "message"), BAD.values(), ids=BAD)
def test_invalid_object_is_refused_with_its_place(
    item: dict[str, Any], message: str, kubectl: Kubectl, namespace: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        create(kubectl, namespace, item)
    assert message in refused.value.stderr


@pytest.mark.parametrize("first", range(0, 256, 15))
def test_4097_bytes_are_refused_under_any_key_id(first: int, kubectl: Kubectl, namespace: str) -> None:
    with pytest.raises(KubectlError, match=TOO_LARGE):
        create(kubectl, namespace, values(blob(4097, first)))


@pytest.mark.parametrize(
    "data_key",
    [
        *("a", "Z", "0", "_", "-", ".a", "a.", "a..b", "a.", "-._", "tls.crt", ".dockerconfigjson", "x" * 253),
        *("", ".", "..", "...", "..a", "..data", "a b", " ", "a/b", "a:b", "a\\b", "ä", "a\n", "x" * 254),
    ],
    ids=repr,
)
def test_data_key_is_accepted_exactly_when_kubernetes_accepts_it_in_a_secret(
    data_key: str, kubectl: Kubectl, namespace: str
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {data_key: ""}}
    try:
        create(kubectl, namespace, secret)
    except KubectlError:
        with pytest.raises(KubectlError, match=DATA_KEY):
            create(kubectl, namespace, encrypted_secret(encryptedData={data_key: VALUE}))
    else:
        create(kubectl, namespace, encrypted_secret(encryptedData={data_key: VALUE}))


def test_unknown_fields_are_dropped_when_the_client_does_not_ask(kubectl: Kubectl, namespace: str) -> None:
    item = encrypted_secret(data={"password": "hunter2"})
    assert "data" not in create(kubectl, namespace, item, "--validate=ignore")["spec"]


def test_nothing_is_added_to_a_spec(kubectl: Kubectl, namespace: str) -> None:
    assert create(kubectl, namespace, encrypted_secret())["spec"] == encrypted_secret()["spec"]


EMPTIED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "encryptionContext": ({"encryptionContext": {"a": "b"}}, {"encryptionContext": {}}),
    "template": ({"template": {"type": "Opaque"}}, {"template": {}}),
    "template.metadata": ({"template": {"metadata": {"labels": {"a": "b"}}}}, {"template": {"metadata": {}}}),
    "labels": ({"template": {"metadata": {"labels": {"a": "b"}}}}, {"template": {"metadata": {"labels": {}}}}),
    "annotations": (
        {"template": {"metadata": {"annotations": {"a": "b"}}}},
        {"template": {"metadata": {"annotations": {}}}},
    ),
}


@pytest.mark.parametrize(("full", "empty"), EMPTIED.values(), ids=EMPTIED)
def test_map_can_be_emptied_by_server_side_apply(
    full: dict[str, Any], empty: dict[str, Any], kubectl: Kubectl, namespace: str
) -> None:
    # The API server makes null of it.
    for spec in (full, empty):
        kubectl.apply(encrypted_secret(**spec), namespace=namespace, options=["--validate=strict"])
    kubectl("label", "esec", "db", "-n", namespace, "still=accepted")
    parsed = encryptedsecret.parse(kubectl.json("get", "esec", "db", "-n", namespace))
    assert (parsed.raw_context, parsed.template.labels, parsed.template.annotations) == ({}, {}, {})


def test_values_cannot_be_emptied_by_server_side_apply(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(encrypted_secret(), namespace=namespace)
    with pytest.raises(KubectlError, match=r"spec\.encryptedData"):
        kubectl.apply(encrypted_secret(encryptedData={}), namespace=namespace)


def test_fresh_object_is_not_healthy_and_its_status_cannot_be_written_along(kubectl: Kubectl, namespace: str) -> None:
    forged = encrypted_secret() | {"status": {"observedGeneration": 1, "secretName": "db"}}
    assert create(kubectl, namespace, forged)["status"] == {"observedGeneration": -1}


def test_table_and_short_names_tell_the_story(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(encrypted_secret(), namespace=namespace)
    when = "2026-11-23T10:00:00Z"
    condition = {"type": "Ready", "status": "False", "reason": "KeyNotFound", "lastTransitionTime": when}
    status = {"observedGeneration": 1, "secretName": "db", "conditions": [condition | {"message": "no such key"}]}
    patch = json.dumps({"status": status})
    kubectl("patch", "esec", "db", "-n", namespace, "--subresource=status", "--type=merge", "--patch", patch)
    header, row = kubectl("get", "esec", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "KEY", "SECRET", "AGE"]
    assert row.split()[:5] == ["db", "False", "KeyNotFound", "prod", "db"]
    assert "no such key" in kubectl("get", "esec", "-n", namespace, "-o", "wide")
    assert "db" in kubectl("get", "strongroom", "-n", namespace)
