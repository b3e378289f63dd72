# SPDX-License-Identifier: Apache-2.0
"""Typed view of a CustomerMasterKey as the API server returns it. The CRD's schema has checked the shape."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef, ObjectKey
from strongroom.model.keys import KeySpec, KeyState, VersionState


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One entry of `status.versions`."""

    version: KeyVersion
    state: VersionState
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """The recorded intent to generate one version; outlives a crash between token and status."""

    version: KeyVersion
    key_id: KeyId


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One CustomerMasterKey. `spec_state` is what the administrator asks for; `state` is what holds for operations."""

    name: str
    uid: str
    resource_version: int
    generation: int
    deleting: bool
    hsm: str
    key_spec: str
    """As written: an unknown one is refused as UnsupportedFormat by whoever acts on it."""
    spec_state: KeyState
    requested_key_id: KeyId | None
    """`spec.keyId`: existing material to adopt."""
    key_id: KeyId | None
    """`status.keyId`; None until the key is created or adopted."""
    versions: tuple[VersionStatus, ...]
    pending: PendingVersion | None
    shared: bool
    status: Mapping[str, Any]
    """The status as it stands, to write only what differs."""

    @property
    def key(self) -> ObjectKey:
        """Where the object lives: cluster-scoped."""
        return ObjectKey("", self.name)

    @property
    def state(self) -> KeyState:
        """The state that decides about operations; Creating until a primary version exists."""
        return self.spec_state if self.key_id is not None and self.primary is not None else KeyState.CREATING

    @property
    def primary(self) -> KeyVersion | None:
        """The version that encrypts."""
        return next((entry.version for entry in self.versions if entry.state is VersionState.PRIMARY), None)

    @property
    def supported(self) -> bool:
        """Whether this operator knows the key's spec."""
        return self.key_spec in KeySpec.__members__.values()

    def has_version(self, version: KeyVersion) -> bool:
        """Whether blobs of this version can be decrypted."""
        return any(entry.version == version for entry in self.versions)

    def version_ref(self, version: KeyVersion) -> KeyVersionRef:
        """Name of one version's material. The key must have an id."""
        assert self.key_id is not None
        return KeyVersionRef(self.key_id, version)


def parse(body: Mapping[str, Any]) -> MasterKey:
    """Read an object that passed the CRD's schema."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    pending = status.get("pendingVersion")
    return MasterKey(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        generation=metadata["generation"],
        deleting="deletionTimestamp" in metadata,
        hsm=spec["hsm"],
        key_spec=spec["keySpec"],
        spec_state=KeyState(spec["state"]),
        requested_key_id=_key_id(spec.get("keyId")),
        key_id=_key_id(status.get("keyId")),
        versions=tuple(
            VersionStatus(
                KeyVersion(entry["version"]), VersionState(entry["state"]), datetime.fromisoformat(entry["createdAt"])
            )
            for entry in status.get("versions") or ()
        ),
        pending=PendingVersion(KeyVersion(pending["version"]), KeyId(uuid.UUID(pending["keyId"]))) if pending else None,
        shared=bool(status.get("shared")),
        status=status,
    )


def _key_id(text: str | None) -> KeyId | None:
    return KeyId(uuid.UUID(text)) if text else None
