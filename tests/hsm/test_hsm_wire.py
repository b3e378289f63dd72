# SPDX-License-Identifier: Apache-2.0
"""Frames between operator and worker: exact, bounded, typed."""

import msgspec
import pytest

from strongroom import profiles
from strongroom.hsm import wire
from strongroom.model.algorithms import Algorithm
from strongroom.model.keys import KeySpec

_SEAL = wire.Seal(
    b"i" * 20,
    Algorithm.AES_256_GCM,
    [wire.SealValue(bytearray(b"p"), b"aad"), wire.SealValue(bytearray(), b"aad")],
)
_OPENED = wire.OpenedValues([bytearray(b"p"), bytearray()])
_MESSAGES: list[wire.Request | wire.Reply] = [
    wire.Start("/lib/x.so", "", "configdir=x", "label", profiles.load("generic")),
    wire.LogIn(bytearray(b"1234")),
    wire.OpenSessions(2),
    wire.DescribeToken(),
    _SEAL,
    wire.Open(
        b"i" * 20, Algorithm.RSA_OAEP_SHA256_AES_256_GCM, [wire.OpenValue(b"w" * 384, b"n" * 12, b"b" * 17, b"aad")]
    ),
    wire.Find(b""),
    wire.Generate(b"i" * 20, "label", KeySpec.RSA_4096),
    wire.Verify(b"i" * 20),
    wire.Done(),
    wire.SessionsOpened(2),
    wire.TokenDescription("l", "m", "m", "s", "1.0"),
    wire.SealedValues([wire.SealedValue(b"n" * 12, b"b" * 16)]),
    _OPENED,
    wire.FoundKeys([wire.FoundKey(b"i" * 20, "label", KeySpec.AES_256, True)]),
    wire.FoundKeys([wire.FoundKey(b"i" * 20, "label", KeySpec.RSA_3072, True, b"m" * 384, b"\1\0\1")]),
    wire.Failed(wire.Failure.INVALID_CIPHERTEXT, 5, 1),
]


def _split(frame: bytearray) -> tuple[int, int, bytearray]:
    length, request_id = wire.parse_header(frame[: wire.HEADER.size])
    return length, request_id, frame[wire.HEADER.size :]


@pytest.mark.parametrize("message", _MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: wire.Request | wire.Reply) -> None:
    length, request_id, body = _split(wire.encode(7, message))
    assert (length, request_id) == (len(body), 7)
    arrived = wire.decode_request(body) if isinstance(message, wire.Request) else wire.decode_reply(body)
    assert arrived == message
    assert type(arrived) is type(message)


def test_what_is_wiped_after_use_arrives_in_buffers_that_can_be() -> None:
    seal = wire.decode_request(_split(wire.encode(1, _SEAL))[2])
    opened = wire.decode_reply(_split(wire.encode(1, _OPENED))[2])
    assert isinstance(seal, wire.Seal)
    assert isinstance(seal.values[0].plaintext, bytearray)
    assert isinstance(opened, wire.OpenedValues)
    opened.wipe()
    assert opened.values == [bytearray(1), bytearray()]


def test_a_full_batch_fits_into_a_frame() -> None:
    sealing = [wire.SealValue(bytearray(4096), bytes(8192))] * 64
    opening = [wire.OpenValue(bytes(512), bytes(16), bytes(4096 + 48), bytes(8192))] * 64
    for message in (
        wire.Seal(b"i" * 20, Algorithm.AES_256_GCM, sealing),
        wire.Open(b"i" * 20, Algorithm.AES_256_CBC_HMAC_SHA256, opening),
    ):
        assert len(wire.encode(1, message)) < wire.MAX_FRAME_BYTES


def test_a_message_larger_than_a_frame_is_not_sent() -> None:
    with pytest.raises(wire.ProtocolError):
        wire.encode(1, wire.OpenedValues([bytearray(wire.MAX_FRAME_BYTES)]))


def test_an_announced_message_larger_than_a_frame_is_not_read() -> None:
    with pytest.raises(wire.ProtocolError):
        wire.parse_header(bytearray(wire.HEADER.pack(wire.MAX_FRAME_BYTES + 1, 1)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode(["Done", 1, 2][:0]),
        msgspec.msgpack.encode(["Unknown"]),
        msgspec.msgpack.encode(["SealedValues", "text"]),
        msgspec.msgpack.encode(["SealedValues", [[1, 2]]]),
        msgspec.msgpack.encode(["FoundKeys", [[b"i", "l" * 257, "AES_256", True]]]),
        msgspec.msgpack.encode(["FoundKeys", [[b"i", "l", "AES_512", True]]]),
        msgspec.msgpack.encode(["FoundKeys", [[b"i", "l", "RSA_4096", True, b"m" * 513, b"e"]]]),
        msgspec.msgpack.encode(["Failed", "NoSuchFailure", 0, 0]),
        bytes(wire.encode(1, wire.Find(b"secret-marker"))[wire.HEADER.size :]),
    ],
)
def test_what_is_no_answer_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(wire.ProtocolError) as caught:
        wire.decode_reply(bytearray(body))
    assert "secret-marker" not in str(caught.value)
    assert caught.value.__cause__ is None
