# SPDX-License-Identifier: Apache-2.0
"""Types for look-alikes, so that one is never passed for another."""

import uuid
from dataclasses import dataclass
from typing import NewType

KeyId = NewType("KeyId", uuid.UUID)
"""Identity of a master key's material in the token; what blobs name. Random (RFC 9562, version 4)."""

KeyVersion = NewType("KeyVersion", int)
"""Version of a master key, 1..2^32-1."""

MAX_KEY_VERSION = 2**32 - 1
"""Width of the blob's version field."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Where a namespaced object lives."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class KeyVersionRef:
    """One version of one master key."""

    key_id: KeyId
    version: KeyVersion

    def __str__(self) -> str:
        return f"{self.key_id}/v{self.version}"
