# SPDX-License-Identifier: Apache-2.0
"""What goes into a `Token` and comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique

from strongroom.errors import PlaintextTooLarge
from strongroom.hsm.label import KeyLabel
from strongroom.model.ids import KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.limits import MAX_PLAINTEXT_BYTES
from strongroom.model.plaintext import Plaintext

MAX_AAD_BYTES = 8192
"""Largest additional data of one value. Ours stays under 4 KiB: a context of 1024 bytes, three names, framing."""


@unique
class TokenState(Enum):
    """Whether a token can be used, and who can change that."""

    STARTING = "Starting"
    """The first attempt has not ended yet."""
    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"
    """The token or its process is away; tried again with backoff."""
    PIN_INVALID = "PinInvalid"
    """The token refused the login; tried again when the PIN file's content changes, never before."""
    MISCONFIGURED = "Misconfigured"
    """Module, PIN file, token label, files of the token that are open to others, or a PIN that is or is about to be
    locked need an administrator; looked at again with backoff, without a login."""


@unique
class Share(Enum):
    """On whose behalf values are encrypted and decrypted. Each has its part of the sessions, so that neither starves
    the other."""

    RECONCILE = "reconcile"
    """EncryptedSecrets becoming Secrets."""
    API = "api"
    """Requests to the crypto API."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """CK_TOKEN_INFO, padding removed. What the token says of itself; nothing here is verified."""

    label: str
    manufacturer: str
    model: str
    serial: str
    firmware: str


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """One key in the token. Twins show as two entries with one `ref`."""

    ref: KeyVersionRef
    label: KeyLabel | None
    """None: not marked by any Strongroom."""
    spec: KeySpec
    public_key: bytes = field(repr=False)
    """DER SubjectPublicKeyInfo (RFC 5280); empty for AES."""
    never_extractable: bool
    """CKA_NEVER_EXTRACTABLE: generated in the token and never exportable, as the token claims."""


@dataclass(frozen=True, slots=True)
class SealItem:
    """One value to encrypt: at most 4096 bytes (PlaintextTooLarge); `aad` is 1..8192 bytes (ValueError)."""

    plaintext: Plaintext
    aad: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.plaintext) > MAX_PLAINTEXT_BYTES:
            raise PlaintextTooLarge(where="the value", size=len(self.plaintext), limit=MAX_PLAINTEXT_BYTES)
        _check_aad(self.aad)


@dataclass(frozen=True, slots=True)
class Sealed:
    """One encrypted value. `body` is ciphertext ‖ tag."""

    nonce: bytes = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenItem:
    """One value to decrypt. `where` names it in errors; `aad` is 1..8192 bytes (ValueError).

    Nonce, body and wrapped key are the sender's: of any length, however wrong."""

    nonce: bytes = field(repr=False)
    body: bytes = field(repr=False)
    aad: bytes = field(repr=False)
    where: str
    wrapped_key: bytes = field(default=b"", repr=False)
    """The value's own key under RSA algorithms."""

    def __post_init__(self) -> None:
        _check_aad(self.aad)


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Counts since the operator started; for metrics."""

    operations: Mapping[str, int]
    """Requests answered well, by kind: seal, open, find, generate, verify, info."""
    failures: Mapping[str, int]
    """Requests that failed, by reason."""
    values: Mapping[str, int]
    """Values encrypted (seal) and decrypted (open)."""
    worker_starts: int
    worker_losses: int
    """Workers that ended without being asked to: crashes, kills, hangs, lost tokens."""
    logins: int
    """How often the PIN was handed to a worker."""
    sessions: int
    """Sessions for values of the present worker; of the last one while there is none, 0 before the first."""
    in_flight: int
    """Requests the worker was handed and has not answered."""
    waiting: Mapping[str, int]
    """Requests that wait, by what for: a session for `reconcile` or `api`, or `management` of keys."""


def _check_aad(aad: bytes) -> None:
    """Never empty: some SoftHSM builds crash without additional data (upstream issue 664)."""
    if not 1 <= len(aad) <= MAX_AAD_BYTES:
        raise ValueError(f"additional data is {len(aad)} bytes, 1 to {MAX_AAD_BYTES} are allowed")
