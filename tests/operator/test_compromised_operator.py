# SPDX-License-Identifier: Apache-2.0
"""The operator's own token in the wrong hands: no foreign Secret is shown or changed, no permission is gained.

What the admission policy says about each kind of Secret is tested with the chart; here it is the whole of RBAC and
policies, against the running operator's very credentials.
"""

import base64
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.waiting import wait_for
from tests.operator.api import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, Api, Refused, connect
from tests.operator.tenant import KMS, RBAC, Tenant, refusal

pytestmark = pytest.mark.cluster

STRATEGIC_PATCH = "application/strategic-merge-patch+json"
SECRET_VALUE = base64.b64encode(b"nobody's business").decode()
OPERATORS_NAMESPACE = "/api/v1/namespaces/strongroom"
POLICIES = "/apis/admissionregistration.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SUBJECT = [{"kind": "ServiceAccount", "name": "strongroom", "namespace": "strongroom"}]
CLUSTER_ADMIN = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}


@pytest.fixture
def thief(operator: OperatorProcess) -> Iterator[Api]:
    """The API server as whoever stole the operator's token sees it."""
    with connect(operator.kubeconfig) as api:
        yield api


@pytest.fixture
def foreign(admin: Api, tenant: Tenant) -> str:
    """Path of a Secret that is not the operator's."""
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets"
    admin("POST", path, secret("foreign"))
    return f"{path}/foreign"


@pytest.fixture
def pin(admin: Api) -> Iterator[str]:
    """Path of a Secret with the PIN, in the operator's own namespace."""
    name = f"pin-{secrets.token_hex(4)}"
    admin("POST", f"{OPERATORS_NAMESPACE}/secrets", secret(name))
    yield f"{OPERATORS_NAMESPACE}/secrets/{name}"
    admin("DELETE", f"{OPERATORS_NAMESPACE}/secrets/{name}")


def secret(name: str, *, metadata: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name} | dict(metadata or {}),
        "data": {"pin": SECRET_VALUE},
    } | fields


def check_kept(admin: Api, thief: Api, path: str) -> None:
    """Neither shown nor changed by anything the thief may try."""
    before, name = admin("GET", path), path.rpartition("/")[2]
    ours = {"apiVersion": "kms.strongroom.dev/v1alpha1", "kind": "EncryptedSecret", "name": name, "controller": True}
    owned = {"metadata": {"ownerReferences": [ours | {"uid": "0d3cd8ae-8a1f-4f6e-9c57-3b0f3f6d2a11"}]}}
    adopt = {"metadata": {"annotations": {"strongroom.dev/adopt": "true"}}}
    tries: list[tuple[str, str, Any]] = [
        ("GET", "application/json", None),
        ("DELETE", "application/json", None),
        ("PUT", "application/json", secret(name)),
        ("PUT", "application/json", secret(name) | {"data": "none"}),
        ("PUT", "application/json", secret(name, **owned)),
        ("PUT", "application/json", secret(name, **adopt)),
        ("PATCH", MERGE_PATCH, {}),
        ("PATCH", STRATEGIC_PATCH, {}),
        ("PATCH", JSON_PATCH, []),
        ("PATCH", APPLY_PATCH, {"apiVersion": "v1", "kind": "Secret"}),
        ("PATCH", MERGE_PATCH, {"data": {"pin": "eA=="}}),
        ("PATCH", STRATEGIC_PATCH, {"data": {"pin": "eA=="}}),
        ("PATCH", JSON_PATCH, [{"op": "replace", "path": "/data/pin", "value": "eA=="}]),
        ("PATCH", JSON_PATCH, [{"op": "test", "path": "/data/pin", "value": SECRET_VALUE}]),
        ("PATCH", APPLY_PATCH, {"apiVersion": "v1", "kind": "Secret", "data": {"pin": "eA=="}}),
        # The API server answers a patch that makes no Secret with the whole text of what it made, before it asks any
        # policy: so no kind of patch is allowed.
        ("PATCH", MERGE_PATCH, {"metadata": {"generation": "one"}}),
        ("PATCH", STRATEGIC_PATCH, {"metadata": {"labels": "none"}}),
        ("PATCH", JSON_PATCH, [{"op": "add", "path": "/immutable", "value": "yes"}]),
        ("PATCH", JSON_PATCH, [{"op": "copy", "from": "/data/pin", "path": "/metadata/name"}]),
        ("PATCH", JSON_PATCH, [{"op": "copy", "from": "/data/pin", "path": "/type"}]),
        ("PATCH", MERGE_PATCH, owned),
        ("PATCH", MERGE_PATCH, adopt),
    ]
    for method, content_type, body in tries:
        query = {"fieldManager": "strongroom", "force": "true"} if content_type == APPLY_PATCH else {}
        with pytest.raises(Refused) as refused:
            thief(method, path, body, content_type=content_type, **query)
        assert refused.value.code in (400, 403, 422), f"{method} {body}"
        assert method == "PUT" or SECRET_VALUE not in str(refused.value.body)
    assert admin("GET", path) == before


def test_a_foreign_secret_is_neither_shown_nor_changed(admin: Api, thief: Api, foreign: str) -> None:
    check_kept(admin, thief, foreign)


def test_the_pin_is_neither_shown_nor_changed(admin: Api, thief: Api, pin: str) -> None:
    check_kept(admin, thief, pin)


def test_secrets_are_not_deleted_by_the_dozen(thief: Api, foreign: str) -> None:
    assert refusal(thief, "DELETE", foreign.rpartition("/")[0]).code == 403


def owned_by(tenant: Tenant, name: str) -> list[dict[str, Any]]:
    uid = tenant.get(name)["metadata"]["uid"]
    return [
        {
            "apiVersion": "kms.strongroom.dev/v1alpha1",
            "kind": "EncryptedSecret",
            "name": name,
            "uid": uid,
            "controller": True,
        }
    ]


@pytest.mark.parametrize("kind", ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"])
def test_no_secret_that_carries_authority_is_made(kind: str, thief: Api, tenant: Tenant) -> None:
    tenant.deliver("db", {"a": b"1"})
    tenant.api("DELETE", tenant.secret_path("db"))
    made = secret("db", type=kind)
    made["metadata"] |= {
        "ownerReferences": owned_by(tenant, "db"),
        "annotations": {"kubernetes.io/service-account.name": "default"},
    }
    assert refusal(thief, "POST", f"/api/v1/namespaces/{tenant.namespace}/secrets", made).code in (403, 422)


def test_own_secrets_do_not_become_ones_that_carry_authority(thief: Api, tenant: Tenant) -> None:
    tenant.deliver("db", {"a": b"1"})
    change = {"type": "kubernetes.io/service-account-token"}
    with pytest.raises(Refused) as refused:
        thief.patch(tenant.secret_path("db"), change)
    assert refused.value.code in (403, 422)


def test_nothing_that_grants_power_is_made_or_changed(thief: Api, tenant: Tenant) -> None:
    namespace = f"/api/v1/namespaces/{tenant.namespace}"
    binding = {"metadata": {"name": "thief"}, "roleRef": CLUSTER_ADMIN, "subjects": SUBJECT}
    policy = {"metadata": {"name": "thief"}, "spec": {}}
    creations: list[tuple[str, dict[str, Any]]] = [
        (f"{RBAC}/clusterrolebindings", binding),
        (f"{RBAC}/namespaces/{tenant.namespace}/rolebindings", binding),
        (f"{RBAC}/namespaces/strongroom/rolebindings", binding),
        (f"{RBAC}/clusterroles", {"metadata": {"name": "thief"}, "rules": []}),
        (f"{POLICIES}/validatingadmissionpolicybindings", policy),
        (f"{namespace}/pods", {"metadata": {"name": "thief"}, "spec": {"containers": []}}),
        (f"{namespace}/serviceaccounts/default/token", {"spec": {}}),
        (f"{OPERATORS_NAMESPACE}/serviceaccounts/strongroom/token", {"spec": {}}),
        (f"{namespace}/configmaps", {"metadata": {"name": "thief"}, "data": {}}),
        (f"{KMS}/customermasterkeys", {"metadata": {"name": "thief"}, "spec": {}}),
        (f"{KMS}/namespaces/{tenant.namespace}/encryptedsecrets", {"metadata": {"name": "thief"}, "spec": {}}),
    ]
    for path, body in creations:
        assert refusal(thief, "POST", path, body).code == 403, path


def test_what_limits_the_operator_cannot_be_changed_or_deleted_by_it(thief: Api, tenant: Tenant, admin: Api) -> None:
    tenant.deliver("db", {"a": b"1"})
    (config,) = [
        item["metadata"]["name"]
        for item in admin("GET", f"{OPERATORS_NAMESPACE}/configmaps")["items"]
        if "config.yaml" in item.get("data", {})
    ]
    limits = [
        f"{RBAC}/clusterroles/strongroom-operator",
        f"{RBAC}/clusterrolebindings/strongroom-operator",
        f"{RBAC}/namespaces/strongroom/roles/strongroom-operator",
        f"{POLICIES}/validatingadmissionpolicies/strongroom-operator-secrets",
        f"{POLICIES}/validatingadmissionpolicybindings/strongroom-operator-secrets",
        f"{CRDS}/encryptedsecrets.kms.strongroom.dev",
        f"{CRDS}/customermasterkeys.kms.strongroom.dev",
        f"{KMS}/customermasterkeys/{tenant.key}",
        tenant.path("db"),
        "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps",
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        f"/api/v1/namespaces/{tenant.namespace}/configmaps/kube-root-ca.crt",
        f"{OPERATORS_NAMESPACE}/serviceaccounts/strongroom",
    ]
    for path in limits:
        with pytest.raises(Refused) as refused:
            thief.patch(path, {"metadata": {"annotations": {"thief": "was here"}}})
        assert refused.value.code == 403, path
        assert refusal(thief, "DELETE", path).code == 403, path
    assert refusal(thief, "DELETE", f"{OPERATORS_NAMESPACE}/configmaps/{config}").code == 403


def test_nobody_else_is_impersonated(thief: Api, foreign: str) -> None:
    thief.headers = {**thief.headers, "Impersonate-User": "admin", "Impersonate-Group": "system:masters"}
    assert refusal(thief, "GET", foreign).code == 403


def test_own_token_is_no_key_to_the_crypto_api(thief: Api, tenant: Tenant) -> None:
    """The operator decrypts by the token, not by a permission that could be stolen with its credentials."""
    for verb in ("encrypt", "decrypt"):
        path = f"/apis/crypto.strongroom.dev/v1alpha1/namespaces/{tenant.namespace}/keys/{tenant.key}/{verb}"
        assert refusal(thief, "POST", path, {}).code == 403


def test_without_drift_watch_everything_works_and_no_secret_can_be_read(
    own_operator: OwnOperator, tenant: Tenant, foreign: str
) -> None:
    operator = own_operator(values={"secrets": {"driftWatch": False}})
    with connect(operator.kubeconfig) as thief:
        secrets_path = foreign.rpartition("/")[0]
        for path in ("/api/v1/secrets", secrets_path, foreign):
            assert refusal(thief, "GET", path).code == 403
        assert refusal(thief, "GET", "/api/v1/secrets", watch="true", timeoutSeconds="1").code == 403
    tenant.deliver("db", {"kept": b"1", "removed": b"2"})
    changed = tenant.deliver("db", {"kept": b"3", "added": b"4"})
    assert set(changed["data"]) == {"kept", "added"}
    tenant.wait_values("db", {"kept": b"3", "added": b"4"})
    tenant.seal("foreign", {"a": b"1"})
    tenant.wait_reason("foreign", "TargetNotOwned")
    assert tenant.existing_secret("foreign")["data"] == {"pin": SECRET_VALUE}
    operator.kill()
    operator.start()
    tenant.seal("later", {"a": b"1"})
    tenant.wait_ready("later")
    assert wait_for(lambda: tenant.values("db"), 5, "the Secret") == {"kept": b"3", "added": b"4"}
