# SPDX-License-Identifier: Apache-2.0
"""Messages between the operator and a worker, and their frames.

    frame = length u32 BE ‖ request id u32 BE ‖ MessagePack of one typed message      (length: of the message alone)

The operator does not trust a worker: a vendor's library runs there. So messages are plain typed data, never pickles;
every length is bounded, and an answer that does not fit its type ends the worker. Buffers that may hold a plaintext or
the PIN are bytearrays and are overwritten after use, on both sides.
"""

import struct
from enum import StrEnum, unique
from typing import Annotated

import msgspec

from strongroom.model.algorithms import Algorithm
from strongroom.model.keys import KeySpec
from strongroom.profiles import Profile

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Largest message. A full batch of 64 values with the largest additional data is under 1 MiB; the rest is room for
listing about 20,000 keys."""

HEADER = struct.Struct(">II")
_FRAMING_BYTES = 64
"""More than MessagePack and our own fields add to a value."""

MAX_TEXT_LENGTH = 256
"""Longest text in an answer, in characters. Labels of ours are at most 120."""
_ShortText = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]


class ProtocolError(Exception):
    """The other side sent what it must not, or a message does not fit into a frame. Holds no content."""


@unique
class Failure(StrEnum):
    """Why a worker could not do what was asked. The operator words it (`problems`)."""

    UNAVAILABLE = "Unavailable"
    """Token or session do not work any more: this worker is to be replaced."""
    REFUSED = "Refused"
    """The token is well and will not do it."""
    LOGIN_REFUSED = "LoginRefused"
    LOGIN_UNCLEAR = "LoginUnclear"
    """The token answered something that may or may not mean a wrong PIN."""
    PIN_FINAL_TRY = "PinFinalTry"
    """The token says that one more wrong PIN locks it: none is tried."""
    PIN_LOCKED = "PinLocked"
    KEY_NOT_FOUND = "KeyNotFound"
    KEY_TWINS = "KeyTwins"
    KEY_EXISTS = "KeyExists"
    INVALID_CIPHERTEXT = "InvalidCiphertext"
    VALUE_READABLE = "ValueReadable"
    KEY_WRAPPABLE = "KeyWrappable"
    TAMPERING_ACCEPTED = "TamperingAccepted"
    ATTRIBUTES_UNSAFE = "AttributesUnsafe"
    MODULE_UNUSABLE = "ModuleUnusable"
    MODULE_DIGEST_DIFFERS = "ModuleDigestDiffers"
    TOKEN_NOT_FOUND = "TokenNotFound"  # noqa: S105 - a PKCS#11 token, not a credential
    TOKEN_AMBIGUOUS = "TokenAmbiguous"  # noqa: S105
    MECHANISM_MISSING = "MechanismMissing"


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Compact, tagged by its class name. `repr` would show fields: messages are never logged or put into errors."""


class Start(_Message, frozen=True):
    """First request: load the module, find the token. Answer: Done."""

    module: str
    module_sha256: str
    library_parameters: str
    """C_Initialize's pReserved; empty: NULL."""
    token_label: str
    profile: Profile


class LogIn(_Message, frozen=True):
    """Second request, apart from the first so that what fails before C_Login does not count as a try of the PIN: log
    in. Without C_Login in the profile the PIN is empty. Answer: Done."""

    pin: bytearray


class OpenSessions(_Message, frozen=True):
    """Third request, apart from the second so that what fails after C_Login does not count as one either: open up to
    so many sessions. Answer: SessionsOpened."""

    sessions: int


class DescribeToken(_Message, frozen=True):
    """Answer: TokenDescription."""


class SealValue(msgspec.Struct, frozen=True, array_like=True):
    """One value to encrypt."""

    plaintext: bytearray
    aad: bytes


class Seal(_Message, frozen=True):
    """With an AES key. Answer: SealedValues, in order; all or a Failed."""

    cka_id: bytes
    algorithm: Algorithm
    values: list[SealValue]


class OpenValue(msgspec.Struct, frozen=True, array_like=True):
    """One value to decrypt."""

    wrapped_key: bytes
    """The value's own key, wrapped with the public one; empty under an AES key."""
    nonce: bytes
    body: bytes
    aad: bytes


class Open(_Message, frozen=True):
    """Answer: OpenedValues, in order; all or a Failed with the index of the first bad one."""

    cka_id: bytes
    algorithm: Algorithm
    values: list[OpenValue]


class Find(_Message, frozen=True):
    """All keys of the token that are ours and whose id has this prefix. Answer: FoundKeys."""

    id_prefix: bytes


class Generate(_Message, frozen=True):
    """Answer: FoundKeys with the one new key."""

    cka_id: bytes
    label: str
    spec: KeySpec


class Verify(_Message, frozen=True):
    """Answer: FoundKeys with the key, which behaves as it should."""

    cka_id: bytes


class Done(_Message, frozen=True):
    """Done, nothing to tell."""


class SessionsOpened(_Message, frozen=True):
    """Answer to OpenSessions: how many there are, at least 1."""

    sessions: int


class TokenDescription(_Message, frozen=True):
    """CK_TOKEN_INFO, padding removed."""

    label: _ShortText
    manufacturer: _ShortText
    model: _ShortText
    serial: _ShortText
    firmware: _ShortText


class SealedValue(msgspec.Struct, frozen=True, array_like=True):
    """One encrypted value: body = ciphertext ‖ tag."""

    nonce: bytes
    body: bytes


class SealedValues(_Message, frozen=True):
    """Answer to Seal."""

    values: list[SealedValue]


class OpenedValues(_Message, frozen=True):
    """Answer to Open."""

    values: list[bytearray]

    def wipe(self) -> None:
        """Overwrite every value."""
        for value in self.values:
            wipe(value)


class FoundKey(msgspec.Struct, frozen=True, array_like=True):
    """One key object."""

    cka_id: Annotated[bytes, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
    label: _ShortText
    spec: KeySpec
    never_extractable: bool
    modulus: Annotated[bytes, msgspec.Meta(max_length=512)] = b""
    """CKA_MODULUS, big-endian; empty for AES."""
    public_exponent: Annotated[bytes, msgspec.Meta(max_length=8)] = b""


class FoundKeys(_Message, frozen=True):
    """Answer to Find, Generate and Verify."""

    keys: list[FoundKey]


class Failed(_Message, frozen=True):
    """The request failed. `ckr` is the return code that led here (0: none), `index` the value at fault."""

    failure: Failure
    ckr: int = 0
    index: int = 0


Request = Start | LogIn | OpenSessions | DescribeToken | Seal | Open | Find | Generate | Verify
Reply = Done | SessionsOpened | TokenDescription | SealedValues | OpenedValues | FoundKeys | Failed

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(request_id: int, message: Request | Reply) -> bytearray:
    """The whole frame; the caller wipes it after sending. Raises ProtocolError if it is too large."""
    frame = bytearray(HEADER.size + _room(message))
    _encoder.encode_into(message, frame, HEADER.size)
    length = len(frame) - HEADER.size
    if length > MAX_FRAME_BYTES:
        wipe(frame)
        raise ProtocolError(f"a message of {length} bytes does not fit into a frame")
    HEADER.pack_into(frame, 0, length, request_id)
    return frame


def _room(message: Request | Reply) -> int:
    """At least the size of a message that holds a secret: growing would leave copies behind that nobody overwrites."""
    match message:
        case LogIn():
            return len(message.pin) + _FRAMING_BYTES
        case Seal():
            return sum(len(each.plaintext) + len(each.aad) + _FRAMING_BYTES for each in message.values) + _FRAMING_BYTES
        case OpenedValues():
            return sum(len(each) + _FRAMING_BYTES for each in message.values) + _FRAMING_BYTES
        case _:
            return 0


def parse_header(header: bytearray) -> tuple[int, int]:
    """(length, request id). Raises ProtocolError before anything of an oversized message is read."""
    length, request_id = HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {length} bytes was announced")
    return length, request_id


def decode_request(body: bytearray) -> Request:
    """Raises ProtocolError."""
    try:
        request: Request = _request_decoder.decode(body)
    except msgspec.DecodeError:
        raise ProtocolError("a request is not of any known type") from None
    return request


def decode_reply(body: bytearray) -> Reply:
    """Raises ProtocolError."""
    try:
        reply: Reply = _reply_decoder.decode(body)
    except msgspec.DecodeError:
        raise ProtocolError("an answer is not of any known type") from None
    return reply


def wipe(buffer: bytearray) -> None:
    """Overwrite with zeros, in place."""
    buffer[:] = bytes(len(buffer))
