# SPDX-License-Identifier: Apache-2.0
"""Text ↔ `Blob`: strict parsing and canonical serialising of one encrypted value (docs/format.md).

    magic "SR1" ‖ algorithm u8 ‖ keyId 16 ‖ keyVersion u32 BE                                         the header
    ‖ length u16 BE ‖ wrapped key                                                                     RSA algorithms
    ‖ nonce ‖ ciphertext ‖ tag                                                    as long as the algorithm says

in standard base64 with padding (RFC 4648 section 4), so that every value starts with `U1Ix`. Sizes are checked here,
before any cryptography.
"""

import base64
import binascii
import struct
import uuid
from dataclasses import dataclass
from typing import Final

from strongroom.errors import InvalidCiphertext, PlaintextTooLarge, Reason, StrongroomError
from strongroom.model.algorithms import BLOCK_BYTES, Algorithm, modulus_bytes
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.limits import MAX_PLAINTEXT_BYTES

MAGIC: Final = b"SR1"
_HEADER: Final = struct.Struct(">3sB16sI")
_LENGTH: Final = struct.Struct(">H")
"""Stands before the wrapped key, so that a blob is read without its key."""

_WRAPPED_KEY_BYTES: Final = frozenset(filter(None, map(modulus_bytes, KeySpec)))
"""What OAEP makes is as long as the modulus."""

_MAX_TEXT: Final = 6216
"""Longest text of any algorithm's blob (RSA-4096 wrapping a full value), also the CRD's maxLength. Longer text is not
even decoded."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One encrypted value, parsed. `body` is ciphertext ‖ tag."""

    algorithm: Algorithm
    key: KeyVersionRef
    nonce: bytes
    body: bytes
    wrapped_key: bytes = b""
    """The value's own key, encrypted with the public one; empty unless the algorithm is of RSA."""

    @property
    def header(self) -> bytes:
        """Every byte before the nonce; part of what the tag covers."""
        return pack_header(self.algorithm, self.key, self.wrapped_key)

    @property
    def plaintext_sizes(self) -> range:
        """How many bytes the plaintext can have: exactly one size, but under CBC, whose padding is inside, sixteen."""
        return _plaintext_sizes(self.algorithm, len(self.body) - self.algorithm.tag_bytes)

    def serialise(self) -> str:
        """The canonical text."""
        return base64.b64encode(self.header + self.nonce + self.body).decode()

    def __repr__(self) -> str:
        sizes = self.plaintext_sizes
        return f"<Blob {self.algorithm.name} {self.key} of {'up to ' * (len(sizes) > 1)}{sizes[-1]} bytes>"


def pack_header(algorithm: Algorithm, key: KeyVersionRef, wrapped_key: bytes = b"") -> bytes:
    """The bytes before the nonce, needed for the additional data before the blob exists."""
    header = _HEADER.pack(MAGIC, algorithm, key.key_id.bytes, key.version)
    return header + _LENGTH.pack(len(wrapped_key)) + wrapped_key if algorithm.oaep_hash else header


def parse(text: str, *, where: str, limit: int = MAX_PLAINTEXT_BYTES) -> Blob:
    """Parse strictly: only canonical base64, known algorithm, exact lengths.

    `where` names the value in errors (`data key 'password'`); `limit` is the largest plaintext accepted, in bytes.
    Under CBC a plaintext can turn out to be up to 15 bytes larger than the limit: whoever opens it looks again.
    Raises StrongroomError: UnsupportedFormat (not this version or algorithm), InvalidCiphertext (damaged),
    PlaintextTooLarge. Nothing is authenticated yet: every field is the sender's claim until the tag is checked.
    """
    if len(text) > _MAX_TEXT:
        least = _HEADER.size + Algorithm.AES_256_GCM.nonce_bytes + Algorithm.AES_256_GCM.tag_bytes
        raise PlaintextTooLarge(where=where, size=len(text) // 4 * 3 - least, limit=limit)
    raw = _decode_canonical(text, where)
    if not raw.startswith(MAGIC):
        raise _unsupported(where, "is not a Strongroom value")
    if len(raw) < _HEADER.size:
        raise InvalidCiphertext(where=where)
    _, number, key_id, version = _HEADER.unpack_from(raw)
    try:
        algorithm = Algorithm(number)
    except ValueError:
        raise _unsupported(where, f"uses algorithm {number}, which this version does not know") from None
    if version == 0:
        raise InvalidCiphertext(where=where)
    wrapped_key, rest = _split_wrapped_key(algorithm, raw[_HEADER.size :], where)
    sizes = _plaintext_sizes(algorithm, len(rest) - algorithm.nonce_bytes - algorithm.tag_bytes)
    if not sizes:
        raise InvalidCiphertext(where=where)
    if sizes[0] > limit:
        raise PlaintextTooLarge(where=where, size=sizes[0], limit=limit)
    key = KeyVersionRef(KeyId(uuid.UUID(bytes=key_id)), KeyVersion(version))
    return Blob(algorithm, key, rest[: algorithm.nonce_bytes], rest[algorithm.nonce_bytes :], wrapped_key)


def _split_wrapped_key(algorithm: Algorithm, raw: bytes, where: str) -> tuple[bytes, bytes]:
    """The wrapped key and what follows it. Its length must be that of a modulus we know: one blob has one reading."""
    if algorithm.oaep_hash is None:
        return b"", raw
    length = int.from_bytes(raw[: _LENGTH.size])
    end = _LENGTH.size + length
    if length not in _WRAPPED_KEY_BYTES or len(raw) < end:
        raise InvalidCiphertext(where=where)
    return raw[_LENGTH.size : end], raw[end:]


def _plaintext_sizes(algorithm: Algorithm, ciphertext_bytes: int) -> range:
    """Empty: no ciphertext is so long."""
    largest = algorithm.plaintext_bytes(ciphertext_bytes)
    if largest is None:
        return range(0)
    padded = algorithm is Algorithm.AES_256_CBC_HMAC_SHA256
    return range(largest - BLOCK_BYTES + 1 if padded else largest, largest + 1)


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
