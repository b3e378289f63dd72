# SPDX-License-Identifier: Apache-2.0
import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.envelope import format as envelope
from strongroom.envelope.format import OVERHEAD_BYTES, Algorithm, Blob
from strongroom.errors import PlaintextTooLarge, Reason, StrongroomError
from strongroom.model.ids import MAX_KEY_VERSION, KeyId, KeyVersion, KeyVersionRef

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

blobs = st.builds(
    Blob,
    algorithm=st.just(Algorithm.AES_256_GCM),
    key=st.builds(
        KeyVersionRef,
        st.uuids().map(KeyId),
        st.integers(1, MAX_KEY_VERSION).map(KeyVersion),
    ),
    nonce=st.binary(min_size=12, max_size=12),
    body=st.binary(min_size=16, max_size=80),
)


def blob(*, size: int = 5) -> Blob:
    ref = KeyVersionRef(KeyId(uuid.UUID(int=7)), KeyVersion(2))
    return Blob(Algorithm.AES_256_GCM, ref, bytes(range(12)), bytes(size + 16))


def reason_of(text: str) -> Reason | None:
    """The reason that `parse` refuses with; None if it takes the text. Any other exception passes."""
    try:
        envelope.parse(text, where="the value")
    except StrongroomError as error:
        return error.reason
    return None


@given(blobs)
def test_a_blob_survives_text_and_back(original: Blob) -> None:
    assert envelope.parse(original.serialise(), where="it") == original


@given(blobs, st.data())
def test_a_single_changed_character_never_gives_the_same_blob(original: Blob, data: st.DataObject) -> None:
    text = original.serialise()
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.one_of(st.sampled_from(ALPHABET), st.characters()).filter(lambda c: c != text[position]))
    changed = text[:position] + character + text[position + 1 :]
    try:
        parsed = envelope.parse(changed, where="it")
    except StrongroomError:
        return
    assert parsed != original


@given(blobs, st.data())
def test_an_inserted_or_removed_character_never_gives_the_same_blob(original: Blob, data: st.DataObject) -> None:
    text = original.serialise()
    position = data.draw(st.integers(0, len(text) - 1))
    inserted = data.draw(st.one_of(st.just(""), st.sampled_from(ALPHABET + " \n\t\r\0-_"), st.characters()))
    changed = text[:position] + inserted + text[position + (not inserted) :]
    try:
        parsed = envelope.parse(changed, where="it")
    except StrongroomError:
        return
    assert parsed != original


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused_with_a_reason(text: str) -> None:
    reason_of(text)


@given(st.text(alphabet=st.characters(categories=["Cs"]), min_size=1, max_size=8))
def test_lone_surrogates_are_refused(text: str) -> None:
    assert reason_of("U1Ix" + text) is Reason.INVALID_CIPHERTEXT


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused_with_a_reason(raw: bytes) -> None:
    reason_of(base64.b64encode(raw).decode())


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_right_header_are_parsed_or_refused(raw: bytes) -> None:
    text = base64.b64encode(blob().header + raw).decode()
    assert reason_of(text) is (None if len(raw) >= 28 else Reason.INVALID_CIPHERTEXT)


@pytest.mark.parametrize(
    ("size", "limit", "accepted"),
    [
        pytest.param(0, 4096, True, id="empty"),
        pytest.param(4096, 4096, True, id="largest"),
        pytest.param(4097, 4096, False, id="one-more"),
        pytest.param(100, 100, True, id="at-a-lower-limit"),
        pytest.param(101, 100, False, id="above-a-lower-limit"),
        pytest.param(0, 0, True, id="only-empty-values-allowed"),
        pytest.param(1, 0, False, id="one-byte-where-only-empty-values-are-allowed"),
    ],
)
def test_the_size_is_checked_exactly(size: int, limit: int, accepted: bool) -> None:
    text = blob(size=size).serialise()
    if accepted:
        assert envelope.parse(text, where="it", limit=limit).plaintext_size == size
        return
    with pytest.raises(PlaintextTooLarge, match=f"data key 'password' is {size} bytes, at most {limit} "):
        envelope.parse(text, where="data key 'password'", limit=limit)


def test_text_longer_than_any_blob_is_refused_before_it_is_decoded() -> None:
    assert reason_of("!" * 6216) is Reason.INVALID_CIPHERTEXT
    assert reason_of("!" * 6217) is Reason.PLAINTEXT_TOO_LARGE
    assert reason_of("!" * 10_000_000) is Reason.PLAINTEXT_TOO_LARGE


def test_every_blob_is_52_bytes_larger_than_its_plaintext_and_starts_alike() -> None:
    text = blob(size=10).serialise()
    assert len(base64.b64decode(text)) == 10 + OVERHEAD_BYTES == 62
    assert text.startswith("U1Ix")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(blob().serialise()[:-8], id="malformed"),
        pytest.param("QUJD" + blob().serialise()[4:], id="unsupported"),
        pytest.param(blob(size=4097).serialise(), id="too-large"),
    ],
)
def test_a_refusal_names_the_place_and_quotes_nothing(text: str) -> None:
    with pytest.raises(StrongroomError) as caught:
        envelope.parse(text, where="spec.encryptedData[password]")
    shown = str(caught.value) + repr(caught.value)
    assert "spec.encryptedData[password]" in shown
    assert not any(text[start : start + 12] in shown for start in range(len(text) - 12))


def test_the_repr_of_a_blob_shows_no_bytes_of_it() -> None:
    assert repr(blob(size=5)) == f"<Blob AES_256_GCM {uuid.UUID(int=7)}/v2 of 5 bytes>"
