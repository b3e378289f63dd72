# SPDX-License-Identifier: Apache-2.0
"""Typed view of a CustomerMasterKey as the API server returns it. The CRD's schema has checked the shape."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef, ObjectKey
from strongroom.model.keys import KeySpec, KeyState, VersionState


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One entry of `status.versions`."""

    version: KeyVersion
    state: VersionState
    created_at: datetime
    algorithm: Algorithm | None
    """Of values under this version; it stays, whatever becomes of the token's profile. None: one that this version of
    the operator does not know, or that does not fit the key's spec."""


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
    spec_state: KeyState | None
    """None: a word that this version does not know."""
    requested_key_id: KeyId | None
    """`spec.keyId`: existing material to adopt."""
    key_id: KeyId | None
    """`status.keyId`; None until the key is created or adopted."""
    versions: tuple[VersionStatus, ...]
    pending: PendingVersion | None
    shared: bool
    public_key: str
    """PEM, as published; empty unless the key is of RSA. For showing: who seals with it asks the token."""
    oaep_hash: str
    """What to seal with, published beside the public key."""
    status: Mapping[str, Any]
    """The status as it stands, to write only what differs."""

    @property
    def key(self) -> ObjectKey:
        """Where the object lives: cluster-scoped."""
        return ObjectKey("", self.name)

    @property
    def state(self) -> KeyState:
        """The state that decides about operations; Creating until a primary version exists, and while the spec holds
        something that this version does not know."""
        if self.spec_state is None or not self.supported or self.key_id is None or self.primary is None:
            return KeyState.CREATING
        return self.spec_state

    @property
    def primary(self) -> KeyVersion | None:
        """The version that encrypts."""
        return next((entry.version for entry in self.versions if entry.state is VersionState.PRIMARY), None)

    @property
    def known_spec(self) -> KeySpec | None:
        """`key_spec`, if this operator knows it."""
        return _known_spec(self.key_spec)

    @property
    def supported(self) -> bool:
        """Whether this operator knows what the spec asks for."""
        return self.known_spec is not None and self.spec_state is not None

    def has_version(self, version: KeyVersion) -> bool:
        """Whether blobs of this version can be decrypted."""
        return any(entry.version == version for entry in self.versions)

    def algorithm(self, version: KeyVersion) -> Algorithm | None:
        """Algorithm of values under this version; None: unknown."""
        return next((entry.algorithm for entry in self.versions if entry.version == version), None)

    def version_ref(self, version: KeyVersion) -> KeyVersionRef:
        """Name of one version's material. The key must have an id."""
        assert self.key_id is not None
        return KeyVersionRef(self.key_id, version)


def parse(body: Mapping[str, Any]) -> MasterKey:
    """Read an object that passed the CRD's schema. What its status holds and we cannot read counts as not there, so
    that one odd object never stops the others."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    return MasterKey(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        generation=metadata["generation"],
        deleting="deletionTimestamp" in metadata,
        hsm=spec["hsm"],
        key_spec=spec["keySpec"],
        spec_state=KeyState(spec["state"]) if spec["state"] in KeyState.__members__.values() else None,
        requested_key_id=_key_id(spec.get("keyId")),
        key_id=_key_id(status.get("keyId")),
        versions=tuple(filter(None, (_version(entry, spec["keySpec"]) for entry in status.get("versions") or ()))),
        pending=_pending(status.get("pendingVersion") or {}),
        shared=bool(status.get("shared")),
        public_key=str(status.get("publicKey") or ""),
        oaep_hash=str(status.get("oaepHash") or ""),
        status=status,
    )


def _key_id(text: str | None) -> KeyId | None:
    try:
        return KeyId(uuid.UUID(text)) if text else None
    except ValueError:
        return None


def _known_spec(text: str) -> KeySpec | None:
    return KeySpec(text) if text in KeySpec.__members__.values() else None


def _version(entry: Mapping[str, Any], key_spec: str) -> VersionStatus | None:
    try:
        created_at = datetime.fromisoformat(entry["createdAt"])
        algorithm = _algorithm(entry.get("algorithm"), _known_spec(key_spec))
        return VersionStatus(KeyVersion(entry["version"]), VersionState(entry["state"]), created_at, algorithm)
    except (KeyError, TypeError, ValueError):
        return None


def _algorithm(name: object, spec: KeySpec | None) -> Algorithm | None:
    """The first releases knew one algorithm, and some statuses of theirs do not name it."""
    algorithm = Algorithm.__members__.get(name) if isinstance(name, str) else Algorithm.AES_256_GCM
    if algorithm is None or spec is None or (algorithm.oaep_hash is not None) is not spec.asymmetric:
        return None
    return algorithm


def _pending(entry: Mapping[str, Any]) -> PendingVersion | None:
    key_id, version = _key_id(entry.get("keyId")), entry.get("version")
    return PendingVersion(KeyVersion(version), key_id) if key_id is not None and isinstance(version, int) else None
