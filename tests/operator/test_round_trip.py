# SPDX-License-Identifier: Apache-2.0
"""What was encrypted arrives in the Secret, byte for byte."""

import base64
import json
import os
import string

import pytest

from strongroom.model.limits import MAX_PLAINTEXT_BYTES
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import CRYPTO, Tenant, controller, decoded, refusal

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

ALL_CHARACTERS = string.ascii_letters + string.digits + "-_."
VALUES = {
    "empty": b"",
    "one-byte": b"\0",
    "limit-minus-1": os.urandom(4095),
    "limit": os.urandom(4096),
    "every-byte": bytes(range(256)),
    "newlines": b"\r\n\n",
    "not-utf-8": b"\xff\xfe\x00\xd8",
    "looks-like-base64": b"U1Ix",
}
DATA_KEYS = {
    "one-letter": "a",
    "253-long": "k" * 253,
    "every-character": ALL_CHARACTERS,
    "leading-dot": ".dockercfg",
    "trailing-dot": "a.",
    "dashes": "-",
    "underscore": "_",
    "inner-dots": "a..b",
    "upper-case": "API_TOKEN",
    "digits": "0",
    "like-a-path": "tls.crt.d-1_2",
}
TYPED = {
    "kubernetes.io/tls": {"tls.crt": os.urandom(1500), "tls.key": os.urandom(1700)},
    "kubernetes.io/dockerconfigjson": {".dockerconfigjson": json.dumps({"auths": {"r": {"auth": "eDp5"}}}).encode()},
    "kubernetes.io/dockercfg": {".dockercfg": json.dumps({"r": {"auth": "eDp5"}}).encode()},
    "kubernetes.io/basic-auth": {"username": b"u", "password": b"p\n"},
    "kubernetes.io/ssh-auth": {"ssh-privatekey": b"-----BEGIN OPENSSH PRIVATE KEY-----\n"},
    "example.com/custom": {"a": b"\x80"},
}


def test_values_of_every_size_and_content_arrive(tenant: Tenant) -> None:
    secret = tenant.deliver("db", VALUES)
    assert decoded(secret) == VALUES
    assert secret["type"] == "Opaque"


def test_every_shape_of_data_key_arrives(tenant: Tenant) -> None:
    values = {data_key: what.encode() for what, data_key in DATA_KEYS.items()}
    assert decoded(tenant.deliver("db", values)) == values


def test_64_full_values_arrive(tenant: Tenant) -> None:
    values = {f"value-{n}": os.urandom(MAX_PLAINTEXT_BYTES) for n in range(64)}
    assert decoded(tenant.deliver("db", values)) == values


def test_65_values_are_refused(tenant: Tenant) -> None:
    blob = tenant.encrypt("db", {"a": b"x"}, scope="Cluster")["a"]
    manifest = tenant.manifest("db", {f"value-{n}": blob for n in range(65)})
    refused = refusal(tenant.api, "POST", tenant.path("db").rpartition("/")[0], manifest)
    assert (refused.code, "must have at most 64 items" in str(refused)) == (422, True)


@pytest.mark.parametrize("secret_type", TYPED)
def test_secret_has_the_type_of_the_template(tenant: Tenant, secret_type: str) -> None:
    secret = tenant.deliver("db", TYPED[secret_type], template={"type": secret_type})
    assert secret["type"] == secret_type
    assert decoded(secret) == TYPED[secret_type]


def test_longest_name_and_a_dotted_one_work(tenant: Tenant) -> None:
    for name in ("n" * 253, "a.b-c.d0"):
        assert decoded(tenant.deliver(name, {"a": name.encode()})) == {"a": name.encode()}


def test_encryption_context_is_part_of_the_round_trip(tenant: Tenant) -> None:
    context = {"team": "payments", "Ünïcode": "ключ", "": "x"} | {f"k{n}": "" for n in range(12)}
    del context[""]  # an empty key is not allowed
    assert decoded(tenant.deliver("db", {"a": b"1"}, encryptionContext=context)) == {"a": b"1"}


def test_one_byte_too_many_is_refused_by_the_api(tenant: Tenant) -> None:
    value = base64.b64encode(os.urandom(MAX_PLAINTEXT_BYTES + 1)).decode()
    request = {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "EncryptRequest",
        "spec": {"scope": "Strict", "name": "db", "values": {"fits": "eA==", "password": value}},
    }
    path = f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}/encrypt"
    refused = refusal(tenant.api, "POST", path, request)
    assert (refused.code, refused.reason) == (413, "PlaintextTooLarge")
    message = str(refused)
    assert "password" in message
    assert "4097" in message
    assert "4096" in message
    assert "generatedatakey" in message
    assert value[:16] not in message


def test_secret_is_controlled_labelled_and_held_by_nobody(tenant: Tenant) -> None:
    secret = tenant.deliver("db", {"a": b"1"})
    owner = controller(secret)
    assert owner == {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "name": "db",
        "uid": tenant.get("db")["metadata"]["uid"],
        "controller": True,
    }
    assert secret["metadata"]["labels"] == {
        "strongroom.dev/managed": "true",
        "app.kubernetes.io/managed-by": "strongroom",
    }
    assert "finalizers" not in secret["metadata"]
    assert "finalizers" not in tenant.get("db")["metadata"]


def test_status_names_the_secret_and_the_key_versions(tenant: Tenant) -> None:
    tenant.deliver("db", {"a": b"1", "b": b"2"})
    status = tenant.get("db")["status"]
    assert (status["secretName"], status["keyVersions"], status["observedGeneration"]) == ("db", [1], 1)


def test_values_of_scope_namespace_travel_within_it_and_no_further(tenant: Tenant, new_tenant: TenantFactory) -> None:
    blobs = tenant.encrypt("here", {"a": b"1"}, scope="Namespace")
    tenant.apply("there", blobs, scope="Namespace")
    tenant.wait_ready("there")
    assert tenant.values("there") == {"a": b"1"}
    elsewhere = new_tenant()
    elsewhere.apply("here", blobs, scope="Namespace")
    elsewhere.wait_reason("here", "InvalidCiphertext")
    assert elsewhere.secret("here") is None


def test_values_of_scope_cluster_travel_to_every_namespace_with_permission(
    tenant: Tenant, new_tenant: TenantFactory
) -> None:
    blobs = tenant.encrypt("here", {"a": b"1"}, scope="Cluster")
    permitted, denied = new_tenant(), new_tenant(grant=False)
    for other in (permitted, denied):
        other.apply("there", blobs, scope="Cluster")
    permitted.wait_ready("there")
    assert permitted.values("there") == {"a": b"1"}
    denied.wait_reason("there", "AccessDenied")
    assert denied.secret("there") is None
