# SPDX-License-Identifier: Apache-2.0
"""Text ↔ `Blob`: strict parsing and canonical serialising of one encrypted value (docs/format.md).

    magic "SR1" ‖ algorithm u8 ‖ keyId 16 ‖ keyVersion u32 BE ‖ nonce 12 ‖ ciphertext ‖ tag 16     (algorithm 1)

in standard base64 with padding (RFC 4648 section 4), so that every value starts with `U1Ix`. Sizes are checked here,
before any cryptography.
"""

import base64
import binascii
import struct
import uuid
from dataclasses import dataclass
from enum import IntEnum, unique

from strongroom.errors import InvalidCiphertext, PlaintextTooLarge, Reason, StrongroomError
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.limits import MAX_PLAINTEXT_BYTES, NONCE_BYTES, TAG_BYTES

MAGIC = b"SR1"
_HEADER = struct.Struct(">3sB16sI")
OVERHEAD_BYTES = _HEADER.size + NONCE_BYTES + TAG_BYTES
"""What a blob is larger than its plaintext: 52 bytes."""

_MAX_TEXT = 6216
"""Longest text of any algorithm's blob (RSA-4096 wrapping a full value), also the CRD's maxLength. Longer text is not
even decoded."""


@unique
class Algorithm(IntEnum):
    """The blob's algorithm byte. 2..7 and 16+ are reserved (docs/format.md); an unknown one is never guessed."""

    AES_256_GCM = 1


@dataclass(frozen=True, slots=True)
class Blob:
    """One encrypted value, parsed. `body` is ciphertext ‖ tag."""

    algorithm: Algorithm
    key: KeyVersionRef
    nonce: bytes
    body: bytes

    @property
    def header(self) -> bytes:
        """Every byte before the nonce; part of what the tag covers."""
        return pack_header(self.algorithm, self.key)

    @property
    def plaintext_size(self) -> int:
        """Exact size of the plaintext in bytes."""
        return len(self.body) - TAG_BYTES

    def serialise(self) -> str:
        """The canonical text."""
        return base64.b64encode(self.header + self.nonce + self.body).decode()

    def __repr__(self) -> str:
        return f"<Blob {self.algorithm.name} {self.key} of {self.plaintext_size} bytes>"


def pack_header(algorithm: Algorithm, key: KeyVersionRef) -> bytes:
    """The bytes before the nonce, needed for the additional data before the blob exists."""
    return _HEADER.pack(MAGIC, algorithm, key.key_id.bytes, key.version)


def parse(text: str, *, where: str, limit: int = MAX_PLAINTEXT_BYTES) -> Blob:
    """Parse strictly: only canonical base64, known algorithm, exact lengths.

    `where` names the value in errors (`data key 'password'`); `limit` is the largest plaintext accepted, in bytes.
    Raises StrongroomError: UnsupportedFormat (not this version or algorithm), InvalidCiphertext (damaged),
    PlaintextTooLarge. Nothing is authenticated yet: every field is the sender's claim until the tag is checked.
    """
    if len(text) > _MAX_TEXT:
        raise PlaintextTooLarge(where=where, size=len(text) // 4 * 3 - OVERHEAD_BYTES, limit=limit)
    raw = _decode_canonical(text, where)
    if not raw.startswith(MAGIC):
        raise _unsupported(where, "is not a Strongroom value")
    if len(raw) < _HEADER.size:
        raise InvalidCiphertext(where=where)
    _, algorithm, key_id, version = _HEADER.unpack_from(raw)
    try:
        known = Algorithm(algorithm)
    except ValueError:
        raise _unsupported(where, f"uses algorithm {algorithm}, which this version does not know") from None
    size = len(raw) - OVERHEAD_BYTES
    if size < 0 or version == 0:
        raise InvalidCiphertext(where=where)
    if size > limit:
        raise PlaintextTooLarge(where=where, size=size, limit=limit)
    key = KeyVersionRef(KeyId(uuid.UUID(bytes=key_id)), KeyVersion(version))
    nonce_end = _HEADER.size + NONCE_BYTES
    return Blob(known, key, nonce=raw[_HEADER.size : nonce_end], body=raw[nonce_end:])


def _decode_canonical(text: str, where: str) -> bytes:
    """Decode, encode again and compare: one value has one text, so none can be altered without changing its bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidCiphertext(where=where) from None
    if base64.b64encode(raw).decode() != text:
        raise InvalidCiphertext(where=where)
    return raw


def _unsupported(where: str, what: str) -> StrongroomError:
    return StrongroomError(
        Reason.UNSUPPORTED_FORMAT,
        f"{where} {what}",
        hint="Encrypt it with 'strongroom encrypt', or upgrade the operator",
    )
