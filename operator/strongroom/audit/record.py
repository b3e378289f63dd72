# SPDX-License-Identifier: Apache-2.0
"""The audit record, version 1 (docs/audit.md). Never holds plaintext, data keys, PINs, tokens or ciphertext bodies."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

from strongroom.errors import Reason
from strongroom.model.principal import Caller, ObjectReference

SCHEMA_VERSION = "strongroom.dev/audit/v1"


@unique
class EventName(StrEnum):
    """What was done or tried."""

    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"
    CREATE_KEY = "CreateKey"
    ADOPT_KEY = "AdoptKey"
    CHANGE_KEY_STATE = "ChangeKeyState"
    HSM_LOGIN = "HSMLogin"


@unique
class Outcome(StrEnum):
    """How it ended."""

    SUCCESS = "Success"
    DENIED = "Denied"
    FAILURE = "Failure"


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an operation: the name of its data key and its size in bytes, as far as known."""

    data_key: str
    plaintext_bytes: int


@dataclass(slots=True)
class Entry:
    """One operation, filled in as it goes on and written once."""

    event: EventName
    caller: Caller | None
    """Who asked; None for what the operator does on its own."""
    principal: str = ""
    """User name of the operator itself, where nobody asked."""
    key_name: str = ""
    key_id: str = ""
    key_versions: Sequence[int] = ()
    hsm: str = ""
    scope: str = ""
    name: str = ""
    """Name of the object that the values are bound to."""
    context: Mapping[str, str] = field(default_factory=dict)
    values: Sequence[Value] = ()
    verdict: str = "NotAsked"
    """`Allowed` or `Denied` by RBAC; `NotAsked` if refused before the question."""
    dry_run: bool = False
    detail: Mapping[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def as_record(self, outcome: Outcome, error_code: Reason | None, ckr: str) -> dict[str, Any]:
        """The record without its place in the chain."""
        return {
            "schemaVersion": SCHEMA_VERSION,
            "id": str(uuid7()),
            "time": _now(),
            "durationUs": int((time.monotonic() - self.started) * 1_000_000),
            "eventName": self.event.value,
            **(_caller(self.caller) if self.caller else _own(self.principal)),
            "key": {"name": self.key_name, "id": self.key_id, "versions": list(self.key_versions), "hsm": self.hsm},
            "request": {
                "scope": self.scope,
                "name": self.name,
                "encryptionContext": dict(self.context),
                "values": [{"dataKey": value.data_key, "bytes": value.plaintext_bytes} for value in self.values],
                "dryRun": self.dry_run,
            },
            "verdict": {"decision": self.verdict, "by": "RBAC"},
            "outcome": outcome.value,
            "errorCode": error_code.value if error_code else "",
            "ckr": ckr,
            **({"detail": dict(self.detail)} if self.detail else {}),
        }


def _own(principal: str) -> dict[str, Any]:
    return {"principal": {"username": principal, "uid": "", "groups": []}, "source": {"via": "Controller"}}


def _caller(caller: Caller) -> dict[str, Any]:
    principal, source = caller.principal, caller.source
    return {
        "principal": {"username": principal.username, "uid": principal.uid, "groups": list(principal.groups)},
        "permission": {
            "verb": caller.permission.verb,
            "subresource": caller.permission.subresource,
            "namespace": caller.namespace,
        },
        "source": {
            "via": source.via,
            "address": source.address,
            "userAgent": source.user_agent,
            "claimedAuditId": source.audit_id,
        },
        "object": _object(caller.on_behalf_of) if caller.on_behalf_of else None,
    }


def _object(reference: ObjectReference) -> dict[str, Any]:
    return {
        "apiVersion": reference.api_version,
        "kind": reference.kind,
        "namespace": reference.namespace,
        "name": reference.name,
        "uid": reference.uid,
        "generation": reference.generation,
    }


def _now() -> str:
    """RFC 3339 in UTC with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06d}Z"


def uuid7() -> uuid.UUID:
    """A time-ordered UUID (RFC 9562 section 5.7): 48 bits of milliseconds, the rest random."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
