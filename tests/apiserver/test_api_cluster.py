# SPDX-License-Identifier: Apache-2.0
"""The crypto API through a real kube-apiserver: registered, authorised by RBAC, usable with kubectl alone."""

import asyncio
import base64
import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from strongroom.apiserver.servingcert import SECRET_NAME, ServingCertificates
from strongroom.kube import credentials, paths
from strongroom.kube.client import KubeClient
from testbed.kubectl import Kubectl, KubectlError
from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.apiserver.harness import Clock

pytestmark = pytest.mark.cluster

API_SERVICE = "v1alpha1.crypto.strongroom.dev"
GROUP_VERSION = "crypto.strongroom.dev/v1alpha1"
CANARY = "canary-kJ8vXw2q"


@pytest.fixture
def key(kubectl: Kubectl, operator: OperatorProcess) -> Iterator[str]:
    """Name of an enabled key of the test's own."""
    name = f"api-{secrets.token_hex(4)}"
    kubectl.apply(
        {
            "apiVersion": "kms.strongroom.dev/v1alpha1",
            "kind": "CustomerMasterKey",
            "metadata": {"name": name},
            "spec": {"hsm": "default", "keySpec": "AES_256", "state": "Enabled"},
        }
    )
    wait_for(
        lambda: kubectl.json("get", "cmk", name).get("status", {}).get("state") == "Enabled", 30, f"key {name} enabled"
    )
    wait_for(lambda: _available(kubectl), 30, "the APIService to be available")
    yield name
    kubectl("delete", "cmk", name, "--wait=false")


@pytest.fixture
def grant(kubectl: Kubectl, namespace: str, user: Callable[..., Path]) -> Callable[..., Kubectl]:
    """`grant("strongroom-key-encrypter")`: kubectl as a new user who holds these roles in the namespace alone."""

    def make(*roles: str) -> Kubectl:
        name = f"user-{secrets.token_hex(4)}"
        for role in roles:
            kubectl(
                *("create", "rolebinding", f"{name}-{role}", f"--clusterrole={role}", f"--user={name}"),
                f"--namespace={namespace}",
            )
        return kubectl.with_kubeconfig(user(name))

    return make


def _available(kubectl: Kubectl) -> bool:
    conditions = kubectl.json("get", "apiservice", API_SERVICE).get("status", {}).get("conditions", [])
    return any(item["type"] == "Available" and item["status"] == "True" for item in conditions)


def _raw(caller: Kubectl, namespace: str, key: str, operation: str, query: str = "", **spec: Any) -> Any:
    """`kubectl create --raw`, as documented for people without our command line."""
    body = {
        "apiVersion": GROUP_VERSION,
        "kind": f"{operation.capitalize()}Request",
        "spec": {"scope": "Strict", "name": "db", **spec},
    }
    path = f"/apis/{GROUP_VERSION}/namespaces/{namespace}/keys/{key}/{operation}{query}"
    return json.loads(caller("create", "--raw", path, "-f", "-", stdin=json.dumps(body)))


def _encrypt(caller: Kubectl, namespace: str, key: str, value: bytes, **spec: Any) -> Any:
    return _raw(caller, namespace, key, "encrypt", values={"password": base64.b64encode(value).decode()}, **spec)


def test_kubectl_get_keys_prints_the_table(grant: Callable[..., Kubectl], namespace: str, key: str) -> None:
    caller = grant("strongroom-key-encrypter")

    header, *rows = caller("get", "keys", "--namespace", namespace).splitlines()
    [row] = [row.split() for row in rows if row.startswith(f"{key} ")]

    assert header.split("  ")[0] == "NAME"
    assert header.split() == ["NAME", "STATE", "SPEC", "VERSION", "KEY", "ID"]
    assert row[:4] == [key, "Enabled", "AES_256", "1"]
    assert caller("get", "key", key, "--namespace", namespace, "-o", "name") == f"key.crypto.strongroom.dev/{key}\n"
    shown = caller.json("get", "keys.crypto.strongroom.dev", key, "--namespace", namespace)
    assert shown["status"]["keyId"] == row[4]


def test_values_go_round_with_kubectl_alone(grant: Callable[..., Kubectl], namespace: str, key: str) -> None:
    encrypted = _encrypt(grant("strongroom-key-encrypter"), namespace, key, b"s3cret")
    blobs = encrypted["status"]["encryptedData"]
    decrypted = _raw(grant("strongroom-key-decrypter"), namespace, key, "decrypt", encryptedData=blobs)

    assert blobs["password"].startswith("U1Ix")
    assert "values" not in encrypted["spec"]
    assert decrypted["status"] == {"keyVersions": [1], "values": {"password": base64.b64encode(b"s3cret").decode()}}


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
def test_without_the_role_kube_apiserver_forbids(
    grant: Callable[..., Kubectl], namespace: str, key: str, operation: str
) -> None:
    other_role = {"encrypt": "strongroom-key-decrypter", "decrypt": "strongroom-key-encrypter"}[operation]
    caller = grant(other_role)

    with pytest.raises(KubectlError, match="forbidden"):
        _raw(caller, namespace, key, operation, values={"a": ""}, encryptedData={"a": ""})


def test_a_role_in_one_namespace_is_none_in_another(grant: Callable[..., Kubectl], key: str) -> None:
    caller = grant("strongroom-key-encrypter")

    with pytest.raises(KubectlError, match="forbidden"):
        _encrypt(caller, "default", key, b"x")


def test_scope_cluster_needs_the_permission_everywhere(
    grant: Callable[..., Kubectl], kubectl: Kubectl, namespace: str, key: str
) -> None:
    with pytest.raises(KubectlError, match="in all namespaces"):
        _encrypt(grant("strongroom-key-encrypter"), namespace, key, b"x", scope="Cluster")

    assert _encrypt(kubectl, namespace, key, b"x", scope="Cluster")["status"]["encryptedData"]


def test_can_i_answers_by_role(grant: Callable[..., Kubectl], namespace: str, key: str) -> None:
    caller = grant("strongroom-key-encrypter")

    def can_i(subresource: str) -> str:
        question = ("auth", "can-i", "create", f"keys.crypto.strongroom.dev/{key}", f"--subresource={subresource}")
        try:
            return caller(*question, "--namespace", namespace).strip()
        except KubectlError as error:
            return "no" if error.returncode == 1 else str(error)

    assert (can_i("encrypt"), can_i("decrypt")) == ("yes", "no")


def test_dry_run_and_field_validation_pass_the_aggregator(
    grant: Callable[..., Kubectl], namespace: str, key: str
) -> None:
    caller = grant("strongroom-key-encrypter")

    assert "status" not in _raw(caller, namespace, key, "encrypt", "?dryRun=All", values={"a": ""})
    with pytest.raises(KubectlError, match="unknown field"):
        _raw(caller, namespace, key, "encrypt", "?fieldValidation=Strict", values={"a": ""}, tpyo=1)


def test_refusals_reach_the_user_with_their_text(
    grant: Callable[..., Kubectl], kubectl: Kubectl, namespace: str, key: str
) -> None:
    caller = grant("strongroom-key-encrypter")

    with pytest.raises(KubectlError, match=r"values\[password\] is 4097 bytes, at most 4096 "):
        _encrypt(caller, namespace, key, bytes(4097))
    with pytest.raises(KubectlError, match="there is no CustomerMasterKey 'nope'"):
        _encrypt(caller, namespace, "nope", b"x")
    with pytest.raises(KubectlError, match="MethodNotAllowed"):
        kubectl("delete", "keys.crypto.strongroom.dev", key, "--namespace", namespace)


def test_kubectl_explain_knows_the_fields(grant: Callable[..., Kubectl], namespace: str, key: str) -> None:
    caller = grant("strongroom-key-encrypter")

    def explained() -> str:
        return caller("explain", "keys.crypto.strongroom.dev", "--recursive")

    # kube-apiserver fetches the document in the background.
    text = wait_for(explained, 90, "kubectl explain", interval=1, retry_on=(KubectlError,))
    assert "currentVersion" in text


def test_a_user_of_many_groups_gets_through(kubectl: Kubectl, namespace: str, key: str) -> None:
    groups = [f"--as-group=department-{n}" for n in range(300)]

    assert key in kubectl("get", "keys", "-n", namespace, "--as=boss", "--as-group=system:masters", *groups)


def test_plaintext_does_not_reach_kube_apiservers_audit_log(
    control_plane: Any, kubectl: Kubectl, namespace: str, key: str, operator: OperatorProcess
) -> None:
    encoded = base64.b64encode(CANARY.encode()).decode()
    blobs = _encrypt(kubectl, namespace, key, CANARY.encode())["status"]["encryptedData"]
    _raw(kubectl, namespace, key, "decrypt", encryptedData=blobs)

    log = control_plane.audit_log.read_text()
    assert f"/keys/{key}/decrypt" in log
    for text in (log, operator.log_text(), json.dumps(operator.audit_lines())):
        assert CANARY not in text
        assert encoded not in text


def test_operator_audit_names_the_user_and_kube_apiservers_record(
    grant: Callable[..., Kubectl], control_plane: Any, namespace: str, key: str, operator: OperatorProcess
) -> None:
    caller = grant("strongroom-key-encrypter")
    _encrypt(caller, namespace, key, b"x")

    [record] = [line for line in operator.audit_lines() if line.get("key", {}).get("name") == key and _by_api(line)]
    ids = {event["auditID"] for event in control_plane.audit_events() if f"/keys/{key}/" in event["requestURI"]}
    assert record["source"]["claimedAuditId"] in ids
    assert record["principal"]["username"].startswith("user-")


def _by_api(line: dict[str, Any]) -> bool:
    return bool(line["eventName"] == "Encrypt" and line["source"]["via"] == "API")


def test_validation_needs_no_right_to_list_custom_resource_definitions(
    grant: Callable[..., Kubectl], namespace: str, key: str
) -> None:
    """kubectl refuses before it asks, if the OpenAPI document holds no PATCH of the kind ("failed to check CRD")."""
    manifest = {"apiVersion": GROUP_VERSION, "kind": "Key", "metadata": {"name": "x", "namespace": namespace}}

    with pytest.raises(KubectlError, match='cannot create resource "keys"'):
        grant("strongroom-key-encrypter")("create", "-f", "-", stdin=json.dumps(manifest))


async def test_authority_is_made_and_rotated_with_the_charts_permissions(
    own_operator: Callable[..., OperatorProcess], kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await asyncio.to_thread(own_operator, start=False)
    await asyncio.to_thread(kubectl, "delete", "secret", SECRET_NAME, "-n", "strongroom", "--ignore-not-found")
    monkeypatch.setenv("KUBECONFIG", str(operator.kubeconfig))
    clock = Clock()
    kube = KubeClient(credentials.load(), connections=2)
    try:
        certificates = ServingCertificates(kube, "strongroom", "strongroom", clock=clock)
        clock.advance(days=-310)
        old = (await certificates.refresh()).issuer
        clock.advance(days=310)
        await certificates.refresh()
        new = (await certificates.refresh()).issuer
        trusted = (await kube.get(paths.API_SERVICE))["spec"]["caBundle"]
    finally:
        await kube.close()

    assert new != old
    assert x509.load_pem_x509_certificates(base64.b64decode(trusted)) == [new, old]


def test_port_of_the_operator_serves_nobody_but_kube_apiserver(key: str, operator: OperatorProcess) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = operator.installation.api_port
    request = urllib.request.Request(
        f"https://127.0.0.1:{port}/apis/{GROUP_VERSION}/namespaces/default/keys",
        headers={"X-Remote-User": "system:admin"},
    )

    # kube-apiserver's own requests (availability, discovery, OpenAPI, the users') got through: `key` waited for that.
    with pytest.raises(OSError) as refused:
        urllib.request.urlopen(request, context=context, timeout=5)
    assert not isinstance(refused.value, urllib.error.HTTPError | ConnectionRefusedError | TimeoutError)
