# SPDX-License-Identifier: Apache-2.0
"""The whole error tree, and the one list of reasons.

A reason is the same word everywhere: condition reason of a resource, `reason` of an API answer, `errorCode` of an
audit record. What follows from it (HTTP status, who can heal it) stands in one table here.

    StrongroomError            everything we raise on purpose; carries a `Reason`, a message and a hint
    ├── PlaintextTooLarge      built from facts so that no caller can word it badly
    ├── AccessDenied
    └── InvalidCiphertext      one text for a bad blob and for a wrong context: no oracle

Messages say what, where and what to do. They never hold a plaintext, a PIN, a token or the body of a ciphertext.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, unique


@unique
class Healing(Enum):
    """What ends a failure, and so what a reconciler does with the object meanwhile."""

    RETRY = "retry"
    """Trying again helps: per-object backoff. Shown as `Reconciling`."""
    PERMISSION = "permission"
    """A grant helps: asked again per (namespace, account, key). `Reconciling` for 60 s, then `Stalled`."""
    TOKEN = "token"  # noqa: S105 - a PKCS#11 token, not a credential
    """The HSM coming back helps: parked until then. `Reconciling`."""
    KEY = "key"
    """A change of the CustomerMasterKey helps: parked until then. `Stalled`."""
    SECRET = "secret"  # noqa: S105 - the word for the object, not a credential
    """A change of the target Secret helps: looked at again when it changes, and slowly besides. `Stalled`."""
    OBJECT = "object"
    """Only a change of the object itself helps: never retried. `Stalled`."""


@dataclass(frozen=True, slots=True)
class _Consequence:
    http_status: int
    healing: Healing


@unique
class Reason(StrEnum):
    """Every reason that users and other programs see (docs/errors.md)."""

    DECRYPTED = "Decrypted"
    KEY_READY = "KeyReady"
    KEY_ADOPTED = "KeyAdopted"
    SUSPENDED = "Suspended"
    ASYMMETRIC_KEY = "AsymmetricKey"

    ACCESS_DENIED = "AccessDenied"

    PLAINTEXT_TOO_LARGE = "PlaintextTooLarge"
    INVALID_ENCRYPTION_CONTEXT = "InvalidEncryptionContext"
    INVALID_CIPHERTEXT = "InvalidCiphertext"
    INCORRECT_KEY = "IncorrectKey"
    UNSUPPORTED_FORMAT = "UnsupportedFormat"
    INVALID_REQUEST = "InvalidRequest"

    KEY_NOT_FOUND = "KeyNotFound"
    KEY_VERSION_NOT_FOUND = "KeyVersionNotFound"
    KEY_DISABLED = "KeyDisabled"
    KEY_ARCHIVED = "KeyArchived"
    KEY_PENDING_DELETION = "KeyPendingDeletion"
    KEY_DESTROYED = "KeyDestroyed"
    KEY_NOT_READY = "KeyNotReady"
    KEY_EXISTS = "KeyExists"
    KEY_CONFLICT = "KeyConflict"
    KEY_EXHAUSTED = "KeyExhausted"
    INVALID_KEY_USAGE = "InvalidKeyUsage"
    IMMUTABLE_FIELD = "ImmutableField"

    HSM_UNAVAILABLE = "HSMUnavailable"
    HSM_PIN_INVALID = "HSMPinInvalid"
    HSM_ERROR = "HSMError"

    TARGET_NOT_OWNED = "TargetNotOwned"
    TARGET_IMMUTABLE = "TargetImmutable"
    TARGET_REJECTED = "TargetRejected"
    FORBIDDEN_SECRET_TYPE = "ForbiddenSecretType"  # noqa: S105 - a reason, not a credential
    OPERATOR_FORBIDDEN = "OperatorForbidden"

    AUDIT_UNAVAILABLE = "AuditUnavailable"
    THROTTLED = "Throttled"
    UNAVAILABLE = "Unavailable"
    INTERNAL = "Internal"

    @property
    def http_status(self) -> int:
        """HTTP status of an API answer that carries this reason."""
        return _CONSEQUENCES[self].http_status

    @property
    def healing(self) -> Healing:
        """What ends this failure."""
        return _CONSEQUENCES[self].healing


_CONSEQUENCES: dict[Reason, _Consequence] = {
    Reason.DECRYPTED: _Consequence(200, Healing.OBJECT),
    Reason.KEY_READY: _Consequence(200, Healing.OBJECT),
    Reason.KEY_ADOPTED: _Consequence(200, Healing.OBJECT),
    Reason.SUSPENDED: _Consequence(409, Healing.OBJECT),
    Reason.ASYMMETRIC_KEY: _Consequence(200, Healing.OBJECT),
    Reason.ACCESS_DENIED: _Consequence(403, Healing.PERMISSION),
    Reason.PLAINTEXT_TOO_LARGE: _Consequence(413, Healing.OBJECT),
    Reason.INVALID_ENCRYPTION_CONTEXT: _Consequence(400, Healing.OBJECT),
    Reason.INVALID_CIPHERTEXT: _Consequence(400, Healing.KEY),
    Reason.INCORRECT_KEY: _Consequence(400, Healing.KEY),
    Reason.UNSUPPORTED_FORMAT: _Consequence(400, Healing.OBJECT),
    Reason.INVALID_REQUEST: _Consequence(400, Healing.OBJECT),
    Reason.KEY_NOT_FOUND: _Consequence(404, Healing.KEY),
    Reason.KEY_VERSION_NOT_FOUND: _Consequence(404, Healing.KEY),
    Reason.KEY_DISABLED: _Consequence(409, Healing.KEY),
    Reason.KEY_ARCHIVED: _Consequence(409, Healing.KEY),
    Reason.KEY_PENDING_DELETION: _Consequence(409, Healing.KEY),
    Reason.KEY_DESTROYED: _Consequence(409, Healing.KEY),
    Reason.KEY_NOT_READY: _Consequence(409, Healing.KEY),
    Reason.KEY_EXISTS: _Consequence(409, Healing.KEY),
    Reason.KEY_CONFLICT: _Consequence(409, Healing.KEY),
    Reason.KEY_EXHAUSTED: _Consequence(409, Healing.KEY),
    Reason.INVALID_KEY_USAGE: _Consequence(400, Healing.OBJECT),
    Reason.IMMUTABLE_FIELD: _Consequence(422, Healing.OBJECT),
    Reason.HSM_UNAVAILABLE: _Consequence(503, Healing.TOKEN),
    Reason.HSM_PIN_INVALID: _Consequence(503, Healing.TOKEN),
    Reason.HSM_ERROR: _Consequence(500, Healing.RETRY),
    Reason.TARGET_NOT_OWNED: _Consequence(409, Healing.SECRET),
    Reason.TARGET_IMMUTABLE: _Consequence(409, Healing.SECRET),
    Reason.TARGET_REJECTED: _Consequence(422, Healing.RETRY),
    Reason.FORBIDDEN_SECRET_TYPE: _Consequence(403, Healing.OBJECT),
    Reason.OPERATOR_FORBIDDEN: _Consequence(500, Healing.RETRY),
    Reason.AUDIT_UNAVAILABLE: _Consequence(503, Healing.RETRY),
    Reason.THROTTLED: _Consequence(429, Healing.RETRY),
    Reason.UNAVAILABLE: _Consequence(503, Healing.RETRY),
    Reason.INTERNAL: _Consequence(500, Healing.RETRY),
}


class StrongroomError(Exception):
    """Everything Strongroom raises on purpose.

    `message` says what is wrong and where; `hint`, if any, what to do. Both are safe to show: to the caller, in a
    condition, an Event, a log. `ckr` is the name of the PKCS#11 return code that led here, if one did; it goes to the
    audit record.
    """

    def __init__(self, reason: Reason, message: str, *, hint: str = "", ckr: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint
        self.ckr = ckr

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class PlaintextTooLarge(StrongroomError):
    """A value is larger than may be encrypted directly."""

    def __init__(self, *, where: str, size: int, limit: int) -> None:
        super().__init__(
            Reason.PLAINTEXT_TOO_LARGE,
            f"{where} is {size} bytes, at most {limit} are encrypted directly",
            hint="Larger data takes envelope encryption (generatedatakey): keep the key of the data here",
        )


class InvalidCiphertext(StrongroomError):
    """A blob does not authenticate: damaged, forged, moved, or its context differs. Deliberately one text for all."""

    def __init__(self, *, where: str, ckr: str = "") -> None:
        super().__init__(
            Reason.INVALID_CIPHERTEXT,
            f"{where} does not decrypt: the value is damaged, or was encrypted for another scope, namespace, name, "
            "data key or encryption context",
            hint="Encrypt it again for this object with 'strongroom encrypt'",
            ckr=ckr,
        )


class AccessDenied(StrongroomError):
    """Kubernetes RBAC says no. `grant`, if given, is the command that would change that."""

    def __init__(self, *, who: str, may_not: str, grant: str = "") -> None:
        super().__init__(
            Reason.ACCESS_DENIED, f"{who} may not {may_not}", hint=f"To grant it: {grant}" if grant else ""
        )
