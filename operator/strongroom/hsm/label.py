# SPDX-License-Identifier: Apache-2.0
"""How our keys are marked inside a token: CKA_ID and CKA_LABEL.

    CKA_ID     keyId 16 ‖ version u32 BE
    CKA_LABEL  strongroom/<cluster>/<name>/v<version>/<creation time, UTC>

The id finds a key; the label says whose it is, for adoption and for people who look into the token. A token that has no
room for these (`profiles.Marking.LABEL`) gets a compact label of 40 characters instead, and whose it is stays unknown:

    CKA_LABEL  sr<base64url of keyId 16 ‖ version u32 BE ‖ cluster 8, without padding>
"""

import base64
import binascii
import re
import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from strongroom.model.ids import MAX_KEY_VERSION, KeyId, KeyVersion, KeyVersionRef

_ID = struct.Struct(">16sI")
_CLUSTER = r"[0-9a-f]{16}"
_NAME = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
_LABEL = re.compile(
    rf"strongroom/(?P<cluster>{_CLUSTER})/(?P<name>{_NAME})/v(?P<version>[1-9][0-9]{{0,9}})/(?P<time>[0-9]{{8}}T[0-9]{{6}}Z)"
)
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """What CKA_LABEL says. The constructor checks, so that every label made here can be read back: ValueError."""

    cluster: str
    """The cluster's mark: 16 lower-case hexadecimal characters."""
    name: str
    """Name of the CustomerMasterKey."""
    version: KeyVersion
    created_at: datetime
    """UTC, whole seconds."""

    def __post_init__(self) -> None:
        if not re.fullmatch(_CLUSTER, self.cluster):
            raise ValueError("cluster is not 16 hexadecimal characters")
        if not re.fullmatch(_NAME, self.name):
            raise ValueError("name is not a Kubernetes name of at most 63 characters")
        if not 1 <= self.version <= MAX_KEY_VERSION:
            raise ValueError("version is out of range")
        if self.created_at.tzinfo is not UTC or self.created_at.microsecond or self.created_at.year < 1000:
            raise ValueError("created_at is not UTC in whole seconds")

    def format(self) -> str:
        """The text; at most 120 ASCII characters."""
        return f"strongroom/{self.cluster}/{self.name}/v{self.version}/{self.created_at.strftime(_TIME)}"

    @classmethod
    def parse(cls, text: str) -> "KeyLabel | None":
        """Exactly what `format` writes; None for every other text: such a key is not marked by us."""
        match = _LABEL.fullmatch(text)
        if match is None:
            return None
        try:
            created_at = datetime.strptime(match["time"], _TIME).replace(tzinfo=UTC)
            return cls(match["cluster"], match["name"], KeyVersion(int(match["version"])), created_at)
        except ValueError:
            return None


def pack_id(ref: KeyVersionRef) -> bytes:
    """CKA_ID of a key version: 20 bytes."""
    return _ID.pack(ref.key_id.bytes, ref.version)


def parse_id(cka_id: bytes) -> KeyVersionRef | None:
    """The key version that a CKA_ID names; None if it is none of ours (other tools use 20-byte SHA-1 ids, so the
    UUID's version bits count too)."""
    if len(cka_id) != _ID.size:
        return None
    raw, version = _ID.unpack(cka_id)
    key_id = uuid.UUID(bytes=raw)
    if key_id.version != 4 or version == 0:
        return None
    return KeyVersionRef(KeyId(key_id), KeyVersion(version))


_COMPACT = "sr"


def pack_compact(cka_id: bytes, cluster: str) -> str:
    """The compact label of a key; 40 characters of A-Z, a-z, 0-9, `-` and `_`."""
    return _COMPACT + base64.urlsafe_b64encode(cka_id + bytes.fromhex(cluster)).decode().rstrip("=")


def parse_compact(text: str) -> bytes:
    """The CKA_ID that a compact label stands for; empty for every other text."""
    try:
        raw = base64.b64decode(text.removeprefix(_COMPACT) + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    cka_id, cluster = raw[: _ID.size], raw[_ID.size :].hex()
    return cka_id if text == pack_compact(cka_id, cluster) else b""
