# SPDX-License-Identifier: Apache-2.0
"""What is known of a Secret from its metadata alone: whose it is, and whether anyone changed it.

managedFields tell drift exactly: all our writes use one field manager, and whoever changes a field's value takes the
field away from every other manager. So while our entries own exactly the expected data keys, the values are ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import ObjectKey
from strongroom.model.labels import ADOPT_ANNOTATION, ENCRYPTED_SECRET_KIND, FIELD_MANAGER, KMS_GROUP

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Holds the values of whoever applied the Secret before it was ours, in plain: neither kept nor written again."""


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """One Secret's metadata, reduced to what decides."""

    key: ObjectKey
    uid: str
    resource_version: int
    owners: tuple[Mapping[str, Any], ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    own_data: frozenset[str]
    """Data keys that our field manager owns."""
    all_data: frozenset[str]
    """Data keys that anyone owns."""
    own_labels: frozenset[str]
    own_annotations: frozenset[str]
    owns_type: bool
    finalizers: tuple[str, ...]

    @property
    def controller(self) -> Mapping[str, Any] | None:
        """The owner reference with `controller: true`, if any."""
        return next((owner for owner in self.owners if owner.get("controller")), None)

    @property
    def wants_adoption(self) -> bool:
        """Whether someone asks for it to be taken over; impossible while it has a controller."""
        return self.annotations.get(ADOPT_ANNOTATION) == "true" and self.controller is None

    def owned_by(self, secret: EncryptedSecret) -> bool:
        """Controlled by this very object."""
        controller = self.controller
        return controller is not None and controller.get("uid") == secret.uid

    def owned_by_predecessor(self, secret: EncryptedSecret) -> bool:
        """Controlled by an object of the same kind and name that is gone: restored from a backup, or re-created."""
        controller = self.controller
        return (
            controller is not None
            and str(controller.get("apiVersion", "")).startswith(KMS_GROUP + "/")
            and controller.get("kind") == ENCRYPTED_SECRET_KIND
            and controller.get("name") == secret.key.name
            and controller.get("uid") != secret.uid
        )

    def in_sync_with(self, secret: EncryptedSecret) -> bool:
        """Whether it is as we wrote it from this very spec: owner, data, our labels and annotations. Foreign labels do
        not count."""
        data = set(secret.encrypted_data)
        return (
            self.owned_by(secret)
            and self.owns_type
            and self.own_data == data
            and self.all_data == data
            and _holds(self.labels, secret.labels)
            and _holds(self.annotations, secret.annotations)
            and self.own_labels <= secret.labels.keys()
            and self.own_annotations <= secret.annotations.keys()
        )


def parse(body: Mapping[str, Any]) -> SecretFacts:
    """Read PartialObjectMetadata."""
    metadata = body["metadata"]
    entries = metadata.get("managedFields") or []
    ours = [entry for entry in entries if entry.get("manager") == FIELD_MANAGER]
    return SecretFacts(
        key=ObjectKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        owners=tuple(metadata.get("ownerReferences") or ()),
        labels=metadata.get("labels") or {},
        annotations={
            name: value for name, value in (metadata.get("annotations") or {}).items() if name != _LAST_APPLIED
        },
        own_data=_owned(ours, "f:data"),
        all_data=_owned(entries, "f:data"),
        own_labels=_owned(ours, "f:metadata", "f:labels"),
        own_annotations=_owned(ours, "f:metadata", "f:annotations"),
        owns_type=any("f:type" in (entry.get("fieldsV1") or {}) for entry in ours),
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def whole_ownership(secret: EncryptedSecret) -> dict[str, Any]:
    """The managedFields entry of a Secret whose every field we own."""
    fields: dict[str, Any] = {
        "f:data": {".": {}} | {f"f:{key}": {} for key in secret.encrypted_data},
        "f:metadata": {
            "f:labels": {f"f:{key}": {} for key in secret.labels},
            "f:annotations": {f"f:{key}": {} for key in secret.annotations},
            "f:ownerReferences": {'k:{"uid":"%s"}' % secret.uid: {}},  # noqa: UP031 - braces of FieldsV1
        },
        "f:type": {},
    }
    return {
        "manager": FIELD_MANAGER,
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }


def _owned(entries: Iterable[Mapping[str, Any]], *path: str) -> frozenset[str]:
    """Names of the fields under `path` that any of these managedFields entries owns (FieldsV1: `f:<name>`)."""
    names: set[str] = set()
    for entry in entries:
        fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
        for step in path:
            fields = fields.get(step) or {}
        names.update(name.removeprefix("f:") for name in fields if name.startswith("f:"))
    return frozenset(names)


def _holds(actual: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    return all(actual.get(key) == value for key, value in expected.items())
