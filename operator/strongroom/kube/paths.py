# SPDX-License-Identifier: Apache-2.0
"""Paths of the API server's resources that the operator uses."""

from strongroom.model.ids import ObjectKey
from strongroom.model.labels import (
    CRYPTO_GROUP,
    ENCRYPTED_SECRET_PLURAL,
    KMS_API_VERSION,
    MASTER_KEY_PLURAL,
    VERSION,
)

SECRETS = "/api/v1/secrets"
ENCRYPTED_SECRETS = f"/apis/{KMS_API_VERSION}/{ENCRYPTED_SECRET_PLURAL}"
MASTER_KEYS = f"/apis/{KMS_API_VERSION}/{MASTER_KEY_PLURAL}"
SUBJECT_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
FRONT_PROXY_CONFIGURATION = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
API_SERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{CRYPTO_GROUP}"


def secrets(namespace: str) -> str:
    """Secrets of a namespace."""
    return f"/api/v1/namespaces/{namespace}/secrets"


def secret(key: ObjectKey) -> str:
    """One Secret."""
    return f"{secrets(key.namespace)}/{key.name}"


def encrypted_secret(key: ObjectKey) -> str:
    """One EncryptedSecret."""
    return f"/apis/{KMS_API_VERSION}/namespaces/{key.namespace}/{ENCRYPTED_SECRET_PLURAL}/{key.name}"


def master_key(name: str) -> str:
    """One CustomerMasterKey."""
    return f"{MASTER_KEYS}/{name}"


def config_maps(namespace: str) -> str:
    """ConfigMaps of a namespace."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def events(namespace: str) -> str:
    """Events of a namespace."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def leases(namespace: str) -> str:
    """Leases of a namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
