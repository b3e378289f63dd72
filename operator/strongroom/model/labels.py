# SPDX-License-Identifier: Apache-2.0
"""Names that users and other programs see: API groups, kinds, labels, annotations."""

from collections.abc import Mapping

KMS_GROUP = "kms.strongroom.dev"
CRYPTO_GROUP = "crypto.strongroom.dev"
VERSION = "v1alpha1"
KMS_API_VERSION = f"{KMS_GROUP}/{VERSION}"
CRYPTO_API_VERSION = f"{CRYPTO_GROUP}/{VERSION}"

MASTER_KEY_KIND = "CustomerMasterKey"
MASTER_KEY_PLURAL = "customermasterkeys"
ENCRYPTED_SECRET_KIND = "EncryptedSecret"  # noqa: S105 - a kind, not a credential
ENCRYPTED_SECRET_PLURAL = "encryptedsecrets"  # noqa: S105
KEYS_RESOURCE = "keys"

RESERVED_DOMAIN = "strongroom.dev"
"""Nothing under this domain may be set by a template: it steers the operator."""

MANAGED_LABEL = "strongroom.dev/managed"
"""On every Secret the operator writes, `"true"`; what the metadata watch selects."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
ADOPT_ANNOTATION = "strongroom.dev/adopt"
"""Put on a foreign Secret, `"true"`, by whoever wants it taken over."""

APPLIED_SPEC_ANNOTATION = "strongroom.dev/applied-spec"
"""On every Secret the operator writes: digest of the spec that its values are of."""

FIELD_MANAGER = "strongroom"
"""Field manager of every write; drift is told by who owns which field."""
OPERATOR_POLICY = "strongroom-operator-secrets"
"""The chart's ValidatingAdmissionPolicy for the operator's own writes; its refusals name it."""
EVENT_SOURCE = "strongroom.dev/operator"
"""reportingController of Events."""

_AUTHORITY_TYPES = frozenset({"kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"})
_HELM_TYPES = "helm.sh/"


def carries_authority(secret_type: str) -> bool:
    """Whether a Secret of this type is never written: it would mint or bind a credential, or be taken by Helm for the
    record of a release, which the next rollback applies with its user's permissions."""
    return secret_type in _AUTHORITY_TYPES or secret_type.startswith(_HELM_TYPES)


def is_helm_release(name: str, labels: Mapping[str, str]) -> bool:
    """Whether Helm would take a Secret for the record of a release, whatever its type."""
    return name.startswith("sh.helm.release.") or labels.get("owner") == "helm"
