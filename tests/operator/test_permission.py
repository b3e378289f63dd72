# SPDX-License-Identifier: Apache-2.0
"""Who may use which key is Kubernetes RBAC: granted, it heals; denied, it says how to grant it; revoked, it ends."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.controlplane import ControlPlane
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused, connect
from tests.operator.apicalls import ApiCalls
from tests.operator.backlog import Backlog
from tests.operator.conftest import TenantFactory
from tests.operator.tenant import CRYPTO, RBAC, Tenant, condition

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

HEALING_SECONDS = 60.0
"""A grant that comes later works within this time."""
STALLED_SECONDS = 60.0
"""A denial is being reconciled this long, then stalled."""
SUBJECT_ACCESS_REVIEWS = "subjectaccessreviews"
RBAC_GROUP = "rbac.authorization.k8s.io"

MakeUser = Callable[..., Path]


@pytest.fixture
def outsider(new_tenant: TenantFactory) -> Tenant:
    """A tenant that may not use the key."""
    return new_tenant(grant=False)


def wait_healed(tenant: Tenant, name: str, seconds: float = HEALING_SECONDS) -> None:
    wait_for(lambda: condition(tenant.get(name), "Ready")["status"] == "True", seconds, f"{name} to heal")


def bind(api: Api, namespace: str, name: str, rules: list[dict[str, Any]], subject: dict[str, str]) -> None:
    """A Role with these rules for the subject; in all namespaces if `namespace` is empty."""
    where = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
    kind = "Role" if namespace else "ClusterRole"
    role = {"apiVersion": f"{RBAC_GROUP}/v1", "kind": kind, "metadata": {"name": name}, "rules": rules}
    binding = {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": kind, "name": name},
        "subjects": [subject],
    }
    api.apply(f"{where}/{kind.lower()}s/{name}", role)
    api.apply(f"{where}/{kind.lower()}bindings/{name}", binding)


def key_rules(resource: str, *verbs: str, key: str) -> list[dict[str, Any]]:
    return [
        {"apiGroups": ["crypto.strongroom.dev"], "resources": [resource], "resourceNames": [key], "verbs": list(verbs)}
    ]


def as_user(name: str) -> dict[str, str]:
    return {"apiGroup": RBAC_GROUP, "kind": "User", "name": name}


def answer(api: Api, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Code and message."""
    try:
        api(method, path, body)
    except Refused as error:
        return error.code, str(error.body.get("message"))
    return 200, ""


def encrypt_request(scope: str = "Strict") -> dict[str, Any]:
    return {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "EncryptRequest",
        "spec": {"scope": scope, "name": "db", "values": {"a": "YQ=="}},
    }


def test_a_grant_that_comes_later_heals_the_object(operator: OperatorProcess, outsider: Tenant) -> None:
    pid = operator.pid
    outsider.seal("db", {"a": b"1"})
    denied = outsider.wait_reason("db", "AccessDenied")
    assert condition(denied, "Reconciling")["status"] == "True"
    assert condition(denied, "Stalled")["status"] == "Unknown"
    assert outsider.secret("db") is None
    outsider.grant()
    wait_healed(outsider, "db")
    assert outsider.values("db") == {"a": b"1"}
    assert operator.pid == pid
    assert operator.running


def test_the_command_in_the_message_grants_it(outsider: Tenant, kubectl: Kubectl, control_plane: ControlPlane) -> None:
    outsider.seal("db", {"a": b"1"})
    message = condition(outsider.wait_reason("db", "AccessDenied"), "Ready")["message"]
    command = message.partition("To grant it: ")[2]
    environment = kubectl.environment()
    environment["PATH"] = f"{control_plane.binaries.kubectl.parent}:{environment['PATH']}"
    subprocess.run(["bash", "-c", command], env=environment, check=True, capture_output=True, timeout=30)
    wait_healed(outsider, "db")


@pytest.mark.timeout(240)
def test_a_denial_stalls_after_a_minute_and_still_heals(outsider: Tenant) -> None:
    """Takes one to two minutes: the time is what is tested."""
    outsider.seal("db", {"a": b"1"})
    outsider.wait_reason("db", "AccessDenied")

    def stalled() -> bool:
        return condition(outsider.get("db"), "Stalled")["status"] == "True"

    assert not stalled()
    wait_for(stalled, STALLED_SECONDS + 35, "the denial to be stalled", interval=1)
    latest = outsider.get("db")
    assert condition(latest, "Reconciling")["status"] == "Unknown"
    assert condition(latest, "Ready")["reason"] == "AccessDenied"
    outsider.grant()
    wait_healed(outsider, "db")


def test_a_grant_to_the_group_of_the_namespaces_accounts_counts(outsider: Tenant, admin: Api) -> None:
    outsider.seal("db", {"a": b"1"})
    outsider.wait_reason("db", "AccessDenied")
    group = {"apiGroup": RBAC_GROUP, "kind": "Group", "name": f"system:serviceaccounts:{outsider.namespace}"}
    bind(admin, outsider.namespace, "use", key_rules("keys", "use", key=outsider.key), group)
    wait_healed(outsider, "db")


def test_another_service_account_has_permissions_of_its_own(outsider: Tenant) -> None:
    outsider.grant("reader")
    outsider.seal("own", {"a": b"1"}, serviceAccountName="reader")
    outsider.seal("default", {"a": b"1"})
    outsider.wait_ready("own")
    outsider.wait_reason("default", "AccessDenied")
    assert outsider.secret("default") is None


def test_a_grant_for_one_key_is_none_for_another(outsider: Tenant) -> None:
    other = outsider.make_key()
    outsider.grant(key=other)
    outsider.seal("db", {"a": b"1"})
    outsider.wait_reason("db", "AccessDenied")


def test_revocation_stops_decryption_and_repair_and_deletes_nothing(tenant: Tenant, admin: Api) -> None:
    tenant.deliver("kept", {"a": b"1"})
    admin("DELETE", f"{RBAC}/namespaces/{tenant.namespace}/rolebindings/use-{tenant.key}-default")
    wait_for(lambda: not tenant.may_use("default", tenant.key), 10, "RBAC to know of the revocation")
    numbers = iter(range(100))

    def denied() -> bool:
        """Whether a new object is: a yes is believed for ten seconds."""
        name = f"new-{next(numbers)}"
        tenant.seal(name, {"a": b"1"})
        wait_for(lambda: condition(tenant.get(name), "Ready")["status"] != "Unknown", 30, f"a verdict on {name}")
        return bool(condition(tenant.get(name), "Ready")["reason"] == "AccessDenied")

    wait_for(denied, 20, "the revocation to act", interval=0.5)
    assert tenant.values("kept") == {"a": b"1"}
    tenant.api.patch(tenant.secret_path("kept"), {"data": {"a": "eA=="}})
    tenant.wait_reason("kept", "AccessDenied")
    assert tenant.values("kept") == {"a": b"x"}


def test_a_denied_backlog_asks_once_for_all_and_one_yes_releases_it(
    outsider: Tenant, control_plane: ControlPlane
) -> None:
    backlog = Backlog(outsider, 100)
    calls = ApiCalls(control_plane)
    backlog.create()
    backlog.wait_reason("AccessDenied")
    outsider.grant()
    backlog.wait_reason("Decrypted", HEALING_SECONDS)
    backlog.check_secrets()
    assert calls.count("create", SUBJECT_ACCESS_REVIEWS) <= 25, "one a second at most, not one an object"


def test_a_granted_backlog_costs_about_one_review(
    operator: OperatorProcess, tenant: Tenant, control_plane: ControlPlane
) -> None:
    backlog = Backlog(tenant, 100)
    operator.stop()
    backlog.create()
    calls = ApiCalls(control_plane)
    operator.start()
    backlog.wait_reason("Decrypted")
    assert calls.count("create", SUBJECT_ACCESS_REVIEWS) <= 5


def test_permission_to_encrypt_ends_at_the_namespace(new_tenant: TenantFactory, user: MakeUser, admin: Api) -> None:
    here, there = new_tenant(), new_tenant()
    bind(admin, here.namespace, "encrypter", key_rules("keys/encrypt", "create", key=here.key), as_user("eve"))
    with connect(user("eve")) as eve:
        path = f"keys/{here.key}/encrypt"
        wait_for(
            lambda: answer(eve, "POST", f"{CRYPTO}/namespaces/{here.namespace}/{path}", encrypt_request())[0] == 200,
            10,
            "RBAC to know of the grant",
        )
        code, message = answer(eve, "POST", f"{CRYPTO}/namespaces/{there.namespace}/{path}", encrypt_request())
        assert code == 403
        assert "eve" in message
        code, _ = answer(eve, "POST", f"{CRYPTO}/namespaces/{here.namespace}/keys/{here.key}/decrypt", {})
        assert code == 403, "encrypting is no decrypting"


def test_scope_cluster_needs_the_permission_in_all_namespaces(tenant: Tenant, user: MakeUser, admin: Api) -> None:
    path = f"{CRYPTO}/namespaces/{tenant.namespace}/keys/{tenant.key}/encrypt"
    rules = key_rules("keys/encrypt", "create", key=tenant.key)
    name = f"clusterwide-{tenant.namespace}"
    bind(admin, tenant.namespace, "encrypter", rules, as_user(name))
    with connect(user(name)) as api:
        wait_for(lambda: answer(api, "POST", path, encrypt_request())[0] == 200, 10, "RBAC to know of the grant")
        code, message = answer(api, "POST", path, encrypt_request("Cluster"))
        assert code == 403
        assert "all namespaces" in message
        bind(admin, "", name, rules, as_user(name))
        try:
            wait_for(
                lambda: answer(api, "POST", path, encrypt_request("Cluster"))[0] == 200, 20, "the grant to be enough"
            )
        finally:
            admin("DELETE", f"{RBAC}/clusterrolebindings/{name}")
            admin("DELETE", f"{RBAC}/clusterroles/{name}")


def test_who_may_not_use_a_key_does_not_learn_whether_it_exists(tenant: Tenant, user: MakeUser) -> None:
    requests: list[tuple[str, str, object]] = [
        ("GET", "", None),
        ("POST", "/encrypt", encrypt_request()),
        ("POST", "/decrypt", {}),
    ]
    with connect(user("mallory")) as mallory:
        for method, subresource, body in requests:
            base = f"{CRYPTO}/namespaces/{tenant.namespace}/keys"
            existing = answer(mallory, method, f"{base}/{tenant.key}{subresource}", body)
            missing = answer(mallory, method, f"{base}/no-such-key{subresource}", body)
            assert existing[0] == 403
            assert existing == (missing[0], missing[1].replace("no-such-key", tenant.key))
