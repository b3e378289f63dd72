# SPDX-License-Identifier: Apache-2.0
"""Typed view of an EncryptedSecret as the API server returns it. The CRD's schema has checked the shape."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from strongroom.errors import Reason, StrongroomError
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.ids import ObjectKey
from strongroom.model.labels import (
    APPLIED_SPEC_ANNOTATION,
    ENCRYPTED_SECRET_KIND,
    KMS_API_VERSION,
    MANAGED_BY_LABEL,
    MANAGED_LABEL,
    RESERVED_DOMAIN,
    carries_authority,
    is_helm_release,
)
from strongroom.model.principal import ObjectReference

DEFAULT_SERVICE_ACCOUNT = "default"
_DEFAULT_TYPE = "Opaque"


@dataclass(frozen=True, slots=True)
class Template:
    """What the Secret looks like around its data."""

    type: str
    immutable: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EncryptedSecret:
    """One EncryptedSecret."""

    key: ObjectKey
    uid: str
    resource_version: int
    generation: int
    deleting: bool
    key_name: str
    scope: str
    """As written: an unknown one is refused as UnsupportedFormat."""
    raw_context: Mapping[str, Any]
    encrypted_data: Mapping[str, str]
    service_account: str
    suspended: bool
    template: Template
    spec_digest: str
    """Digest of the spec without `suspend`: two equal ones make the same Secret."""
    status: Mapping[str, Any]
    complete: bool = True
    """False if the blobs were dropped to save memory: read the object anew before decrypting."""

    @property
    def observed(self) -> bool:
        """Whether the status is of this generation."""
        return bool(self.status.get("observedGeneration") == self.generation)

    @property
    def applied(self) -> bool:
        """Whether the Secret was last made from this very spec."""
        return bool(self.status.get("appliedSpec") == self.spec_digest)

    @property
    def ready(self) -> bool:
        """Whether Ready is True."""
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in self.status.get("conditions") or ()
        )

    @property
    def reason(self) -> str:
        """Reason of the Ready condition; empty if there is none yet."""
        return next((c["reason"] for c in self.status.get("conditions") or () if c["type"] == "Ready"), "")

    @property
    def stalled(self) -> bool:
        """Whether the status says that only someone's doing will help."""
        return any(c["type"] == "Stalled" and c["status"] == "True" for c in self.status.get("conditions") or ())

    def without_blobs(self) -> "EncryptedSecret":
        """The same with the names of its data keys alone: all that is needed while nothing is to be decrypted."""
        return replace(self, encrypted_data=dict.fromkeys(self.encrypted_data, ""), complete=False)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the Secret: the template's and our own."""
        return {**self.template.labels, MANAGED_LABEL: "true", MANAGED_BY_LABEL: "strongroom"}

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations of the Secret: the template's, and which spec its values are of."""
        return {**self.template.annotations, APPLIED_SPEC_ANNOTATION: self.spec_digest}

    @property
    def reference(self) -> ObjectReference:
        """The object, for audit records and Events."""
        return ObjectReference(
            KMS_API_VERSION,
            ENCRYPTED_SECRET_KIND,
            self.key.namespace,
            self.key.name,
            self.uid,
            self.generation,
            str(self.resource_version),
        )

    @property
    def owner_reference(self) -> dict[str, Any]:
        """The Secret's controller. No blockOwnerDeletion: nothing of ours ever blocks a deletion."""
        return {
            "apiVersion": KMS_API_VERSION,
            "kind": ENCRYPTED_SECRET_KIND,
            "name": self.key.name,
            "uid": self.uid,
            "controller": True,
        }

    def bindings(self) -> dict[str, Binding]:
        """What each blob must be bound to. Raises StrongroomError (InvalidEncryptionContext, UnsupportedFormat)."""
        if self.scope not in Scope.__members__.values():
            raise StrongroomError(
                Reason.UNSUPPORTED_FORMAT,
                f"spec.scope is {self.scope!r}, unknown to this version of the operator",
                hint="Use Strict, Namespace or Cluster, or upgrade the operator",
            )
        context = EncryptionContext.parse(self.raw_context)
        return {
            data_key: Binding(Purpose.SECRET, Scope(self.scope), self.key.namespace, self.key.name, data_key, context)
            for data_key in self.encrypted_data
        }

    def check_template(self, denied: Callable[[str], bool]) -> None:
        """Refuse what would give authority, steer the operator, or is `denied` by configuration; the CRD refuses the
        first two at admission. Raises StrongroomError (ForbiddenSecretType, UnsupportedFormat, TargetRejected).
        """
        if carries_authority(self.template.type):
            raise StrongroomError(
                Reason.FORBIDDEN_SECRET_TYPE,
                f"spec.template.type {self.template.type!r} carries authority and is never written",
                hint="Use another type",
            )
        if is_helm_release(self.key.name, self.template.labels):
            raise StrongroomError(
                Reason.FORBIDDEN_SECRET_TYPE,
                "by its name or its label owner=helm the Secret would be the record of a release to Helm, and is never "
                "written",
                hint="Use another name, without that label",
            )
        for kind, metadata in (("labels", self.template.labels), ("annotations", self.template.annotations)):
            for key in metadata:
                domain = key.rpartition("/")[0]
                if domain == RESERVED_DOMAIN or domain.endswith("." + RESERVED_DOMAIN) or key == MANAGED_BY_LABEL:
                    raise StrongroomError(
                        Reason.UNSUPPORTED_FORMAT,
                        f"spec.template.metadata.{kind} holds {key!r}, which only the operator sets",
                        hint="Remove it",
                    )
                if denied(key):
                    raise StrongroomError(
                        Reason.TARGET_REJECTED,
                        f"spec.template.metadata.{kind} holds {key!r}, which the operator's configuration denies",
                        hint="Remove it",
                    )


def parse(body: Mapping[str, Any]) -> EncryptedSecret:
    """Read an object that passed the CRD's schema."""
    metadata, spec = body["metadata"], body["spec"]
    template = spec.get("template") or {}
    template_metadata = template.get("metadata") or {}
    return EncryptedSecret(
        key=ObjectKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        generation=metadata["generation"],
        deleting="deletionTimestamp" in metadata,
        key_name=spec["keyRef"]["name"],
        scope=spec["scope"],
        raw_context=spec.get("encryptionContext") or {},
        encrypted_data=spec["encryptedData"],
        service_account=spec.get("serviceAccountName") or DEFAULT_SERVICE_ACCOUNT,
        suspended=bool(spec.get("suspend")),
        template=Template(
            type=template.get("type") or _DEFAULT_TYPE,
            immutable=bool(template.get("immutable")),
            labels=template_metadata.get("labels") or {},
            annotations=template_metadata.get("annotations") or {},
        ),
        spec_digest=_digest(spec),
        status=body.get("status") or {},
    )


def _digest(spec: Mapping[str, Any]) -> str:
    relevant = {key: value for key, value in spec.items() if key != "suspend"}
    return "sha256:" + hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
