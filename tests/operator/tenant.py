# SPDX-License-Identifier: Apache-2.0
"""A namespace whose owner keeps encrypted secrets in it: encrypts, applies, grants, and looks at what comes of it."""

import base64
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.operator.api import Api, Refused

KMS = "/apis/kms.strongroom.dev/v1alpha1"
CRYPTO = "/apis/crypto.strongroom.dev/v1alpha1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REACTION_SECONDS = 30.0
"""How long the operator may take to do what it should on a busy machine; usually it takes milliseconds."""
GONE_SECONDS = 90.0
"""How long a deletion may take: the garbage collector looks for new kinds, such as ours, every 30 s."""


class Tenant:
    """One namespace. Its ServiceAccount `default` may use the key, unless `grant` is False.

    Names are those of an EncryptedSecret and of its Secret alike. `api` is the administrator.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        *,
        key: str = "tests",
        grant: bool = True,
        hsm: str = "default",
        key_spec: str = "AES_256",
    ) -> None:
        self.api = api
        self.namespace = namespace
        self.key_name = key
        self._grant = grant
        self._hsm = hsm
        self._key_spec = key_spec

    # Keys and permission

    @cached_property
    def key(self) -> str:
        """Name of the CustomerMasterKey, ready, and usable here if the tenant is to have that permission."""
        self.make_key(self.key_name)
        if self._grant:
            self.grant()
        return self.key_name

    def make_key(self, name: str = "") -> str:
        """Create a CustomerMasterKey, if there is none of this name, and return its name when it is ready."""
        name = name or f"key-{secrets.token_hex(4)}"
        manifest = {
            "apiVersion": "kms.strongroom.dev/v1alpha1",
            "kind": "CustomerMasterKey",
            "metadata": {"name": name},
            "spec": {"hsm": self._hsm, "keySpec": self._key_spec, "state": "Enabled"},
        }
        path = f"{KMS}/customermasterkeys/{name}"
        self.api.apply(path, manifest)
        wait_for(lambda: condition(self.api("GET", path), "Ready")["status"] == "True", REACTION_SECONDS, "the key")
        return name

    def grant(self, service_account: str = "default", *, key: str = "") -> None:
        """Let the ServiceAccount use the key here; on return RBAC knows."""
        key = key or self.key_name
        role = f"use-{key}"
        rule = {
            "apiGroups": ["crypto.strongroom.dev"],
            "resources": ["keys"],
            "resourceNames": [key],
            "verbs": ["use"],
        }
        subject = {"kind": "ServiceAccount", "name": service_account, "namespace": self.namespace}
        binding = f"{role}-{service_account}"
        api = "rbac.authorization.k8s.io"
        self.api.apply(
            f"{RBAC}/namespaces/{self.namespace}/roles/{role}",
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": role}, "rules": [rule]},
        )
        self.api.apply(
            f"{RBAC}/namespaces/{self.namespace}/rolebindings/{binding}",
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": binding},
                "roleRef": {"apiGroup": api, "kind": "Role", "name": role},
                "subjects": [subject],
            },
        )
        wait_for(lambda: self.may_use(service_account, key), REACTION_SECONDS, "RBAC to know of the grant")

    def may_use(self, service_account: str, key: str) -> bool:
        """RBAC's verdict on the ServiceAccount's use of the key."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{self.namespace}:{service_account}",
                "resourceAttributes": {
                    "group": "crypto.strongroom.dev",
                    "resource": "keys",
                    "verb": "use",
                    "name": key,
                    "namespace": self.namespace,
                },
            },
        }
        answer = self.api("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    # Making

    def encrypt(
        self,
        name: str,
        values: Mapping[str, bytes],
        *,
        scope: str = "Strict",
        context: Mapping[str, str] | None = None,
        key: str = "",
    ) -> dict[str, str]:
        """The values as blobs, by the aggregated API. Raises Refused."""
        spec: dict[str, Any] = {
            "scope": scope,
            "name": name,
            "values": {data_key: base64.b64encode(value).decode() for data_key, value in values.items()},
        }
        if context:
            spec["encryptionContext"] = dict(context)
        request = {"apiVersion": "crypto.strongroom.dev/v1alpha1", "kind": "EncryptRequest", "spec": spec}
        path = f"{CRYPTO}/namespaces/{self.namespace}/keys/{key or self.key}/encrypt"
        encrypted: dict[str, str] = self.api("POST", path, request)["status"]["encryptedData"]
        return encrypted

    def manifest(self, name: str, encrypted_data: Mapping[str, str], **spec: Any) -> dict[str, Any]:
        """An EncryptedSecret of scope Strict; `spec` adds and replaces fields."""
        return {
            "apiVersion": "kms.strongroom.dev/v1alpha1",
            "kind": "EncryptedSecret",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "keyRef": {"name": self.key},
                "scope": "Strict",
                "encryptedData": dict(encrypted_data),
            }
            | spec,
        }

    def apply(self, name: str, encrypted_data: Mapping[str, str], **spec: Any) -> dict[str, Any]:
        """Apply such an EncryptedSecret, as a GitOps tool does. Returns it as stored. Raises Refused."""
        stored: dict[str, Any] = self.api.apply(self.path(name), self.manifest(name, encrypted_data, **spec))
        return stored

    def seal(self, name: str, values: Mapping[str, bytes], **spec: Any) -> dict[str, Any]:
        """Encrypt the values for this object and apply it; scope and context are those of `spec`."""
        encrypted = self.encrypt(name, values, scope=spec.get("scope", "Strict"), context=spec.get("encryptionContext"))
        return self.apply(name, encrypted, **spec)

    def deliver(self, name: str, values: Mapping[str, bytes], **spec: Any) -> dict[str, Any]:
        """Encrypt, apply, and return the Secret, once the object is ready."""
        self.seal(name, values, **spec)
        self.wait_ready(name)
        return self.existing_secret(name)

    # Looking

    def path(self, name: str) -> str:
        """Path of the EncryptedSecret."""
        return f"{KMS}/namespaces/{self.namespace}/encryptedsecrets/{name}"

    def secret_path(self, name: str) -> str:
        """Path of the Secret."""
        return f"/api/v1/namespaces/{self.namespace}/secrets/{name}"

    def get(self, name: str) -> dict[str, Any]:
        """The EncryptedSecret as it is."""
        found: dict[str, Any] = self.api("GET", self.path(name))
        return found

    def secret(self, name: str) -> dict[str, Any] | None:
        """The whole Secret, or None."""
        return self.api.find(self.secret_path(name))

    def existing_secret(self, name: str) -> dict[str, Any]:
        """The whole Secret, which must be there."""
        found = self.secret(name)
        assert found is not None, f"there is no Secret {name}"
        return found

    def values(self, name: str) -> dict[str, bytes] | None:
        """The Secret's data, decoded; None if there is no Secret."""
        found = self.secret(name)
        return None if found is None else decoded(found)

    def audit_lines(self, operator: OperatorProcess) -> list[dict[str, Any]]:
        """The audit records about objects of this namespace, oldest first."""
        return [
            line for line in operator.audit_lines() if (line.get("object") or {}).get("namespace") == self.namespace
        ]

    def wait_reason(self, name: str, reason: str) -> dict[str, Any]:
        """The EncryptedSecret, once Ready has this reason for its present generation."""
        latest: dict[str, Any] = {}

        def reached() -> bool:
            latest.clear()
            latest.update(self.get(name))
            if latest["status"].get("observedGeneration") != latest["metadata"]["generation"]:
                return False
            return bool(condition(latest, "Ready")["reason"] == reason)

        try:
            wait_for(reached, REACTION_SECONDS, f"{name} to be {reason}", interval=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}\nits status is {latest.get('status')}") from None
        return latest

    def wait_ready(self, name: str) -> dict[str, Any]:
        """The EncryptedSecret, once it is ready for its present generation."""
        latest = self.wait_reason(name, "Decrypted")
        assert condition(latest, "Ready")["status"] == "True"
        return latest

    def wait_values(self, name: str, values: Mapping[str, bytes]) -> dict[str, Any]:
        """The Secret, once it holds exactly these values and is controlled by the EncryptedSecret."""
        uid = self.get(name)["metadata"]["uid"]

        def right() -> dict[str, Any] | None:
            found = self.secret(name)
            return found if found and decoded(found) == values and controller(found).get("uid") == uid else None

        return wait_for(right, REACTION_SECONDS, f"Secret {name} to be as it should", interval=0.02)


def condition(item: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """One condition; its status is Unknown if it is not there."""
    conditions: list[dict[str, Any]] = item.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {"status": "Unknown", "reason": ""})


def decoded(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """The data of a Secret."""
    return {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}


def controller(item: Mapping[str, Any]) -> dict[str, Any]:
    """The owner reference that controls the object; empty if there is none."""
    owners: list[dict[str, Any]] = item["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), {})


def refusal(api: Api, method: str, path: str, body: object = None, **query: str) -> Refused:
    """How the API server refuses the request, which it must."""
    try:
        api(method, path, body, **query)
    except Refused as error:
        return error
    raise AssertionError(f"{method} {path} was not refused")


def annotations(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Annotations of a Secret of ours, without the one that says which spec its values are of, which must be there."""
    found = dict(metadata["annotations"])
    assert found.pop("strongroom.dev/applied-spec").startswith("sha256:")
    return found
