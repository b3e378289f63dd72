# SPDX-License-Identifier: Apache-2.0
"""Frames between operator and worker: exact, bounded, typed."""

import msgspec
import pytest

from strongroom.hsm import wire

_MESSAGES: list[wire.Request | wire.Reply] = [
    wire.Start("/lib/x.so", "", "label"),
    wire.LogIn(bytearray(b"1234"), 2),
    wire.DescribeToken(),
    wire.Seal(b"i" * 20, [wire.SealValue(bytearray(b"p"), b"aad"), wire.SealValue(bytearray(), b"aad")]),
    wire.Open(b"i" * 20, [wire.OpenValue(b"n" * 12, b"b" * 17, b"aad")]),
    wire.Find(b""),
    wire.Generate(b"i" * 20, "label"),
    wire.Verify(b"i" * 20),
    wire.Done(),
    wire.TokenDescription("l", "m", "m", "s", "1.0"),
    wire.SealedValues([wire.SealedValue(b"n" * 12, b"b" * 16)]),
    wire.OpenedValues([bytearray(b"p"), bytearray()]),
    wire.FoundKeys([wire.FoundKey(b"i" * 20, "label", True)]),
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
    seal = wire.decode_request(_split(wire.encode(1, _MESSAGES[3]))[2])
    opened = wire.decode_reply(_split(wire.encode(1, _MESSAGES[11]))[2])
    assert isinstance(seal, wire.Seal)
    assert isinstance(seal.values[0].plaintext, bytearray)
    assert isinstance(opened, wire.OpenedValues)
    opened.wipe()
    assert opened.values == [bytearray(1), bytearray()]


def test_a_full_batch_fits_into_a_frame() -> None:
    values = [wire.SealValue(bytearray(4096), bytes(8192))] * 64
    assert len(wire.encode(1, wire.Seal(b"i" * 20, values))) < wire.MAX_FRAME_BYTES


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
        msgspec.msgpack.encode(["FoundKeys", [[b"i", "l" * 257, True]]]),
        msgspec.msgpack.encode(["Failed", "NoSuchFailure", 0, 0]),
        bytes(wire.encode(1, wire.Find(b"secret-marker"))[wire.HEADER.size :]),
    ],
)
def test_what_is_no_answer_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(wire.ProtocolError) as caught:
        wire.decode_reply(bytearray(body))
    assert "secret-marker" not in str(caught.value)
    assert caught.value.__cause__ is None
