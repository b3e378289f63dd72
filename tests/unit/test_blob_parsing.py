# SPDX-License-Identifier: Apache-2.0
import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.envelope import format as envelope
from strongroom.envelope.format import Blob, pack_header
from strongroom.errors import PlaintextTooLarge, Reason, StrongroomError
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import MAX_KEY_VERSION, KeyId, KeyVersion, KeyVersionRef

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

CBC = Algorithm.AES_256_CBC_HMAC_SHA256
RSA = [algorithm for algorithm in Algorithm if algorithm.oaep_hash]
REF = KeyVersionRef(KeyId(uuid.UUID(int=7)), KeyVersion(2))
WRAPPED = {algorithm: 384 if algorithm in RSA else 0 for algorithm in Algorithm}


@st.composite
def _blobs(draw: st.DrawFn) -> Blob:
    algorithm = draw(st.sampled_from(Algorithm))
    ref = KeyVersionRef(KeyId(draw(st.uuids())), KeyVersion(draw(st.integers(1, MAX_KEY_VERSION))))
    wrapped = draw(st.sampled_from([384, 512])) if algorithm in RSA else 0
    body = algorithm.ciphertext_bytes(draw(st.integers(0, 64))) + algorithm.tag_bytes
    sizes = [algorithm.nonce_bytes, body, wrapped]
    nonce, body_bytes, wrapped_key = (draw(st.binary(min_size=size, max_size=size)) for size in sizes)
    return Blob(algorithm, ref, nonce, body_bytes, wrapped_key)


blobs = _blobs()


def blob(algorithm: Algorithm = Algorithm.AES_256_GCM, *, size: int = 5, wrapped: int | None = None) -> Blob:
    body = bytes(algorithm.ciphertext_bytes(size) + algorithm.tag_bytes)
    wrapped_key = bytes(WRAPPED[algorithm] if wrapped is None else wrapped)
    return Blob(algorithm, REF, bytes(range(algorithm.nonce_bytes)), body, wrapped_key)


def text_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


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
    reason_of(text_of(raw))


@given(st.sampled_from(Algorithm), st.binary(max_size=200))
def test_any_bytes_behind_a_right_header_are_parsed_or_refused(algorithm: Algorithm, raw: bytes) -> None:
    text = text_of(pack_header(algorithm, REF, bytes(WRAPPED[algorithm])) + raw)
    ciphertext = len(raw) - algorithm.nonce_bytes - algorithm.tag_bytes
    fits = ciphertext >= 16 and ciphertext % 16 == 0 if algorithm is CBC else ciphertext >= 0
    assert reason_of(text) is (None if fits else Reason.INVALID_CIPHERTEXT)


@given(blobs, st.data())
def test_every_truncation_is_another_blob_or_none(original: Blob, data: st.DataObject) -> None:
    raw = base64.b64decode(original.serialise())
    text = text_of(raw[: data.draw(st.integers(0, len(raw) - 1))])
    try:
        parsed = envelope.parse(text, where="it")
    except StrongroomError:
        return
    assert parsed != original
    assert parsed.serialise() == text


@given(blobs)
def test_the_header_is_every_byte_before_the_nonce(original: Blob) -> None:
    raw = base64.b64decode(original.serialise())
    assert raw == original.header + original.nonce + original.body
    lengths = len(original.wrapped_key).to_bytes(2) if original.algorithm in RSA else b""
    assert original.header[24:] == lengths + original.wrapped_key


@pytest.mark.parametrize("algorithm", RSA)
@pytest.mark.parametrize("length", [0, 1, 256, 383, 385, 511, 513, 640, 1024, 32768, 65535])
def test_a_wrapped_key_is_as_long_as_a_modulus_we_know(algorithm: Algorithm, length: int) -> None:
    raw = pack_header(algorithm, REF)[:24] + length.to_bytes(2) + bytes(4000)
    assert reason_of(text_of(raw)) is Reason.INVALID_CIPHERTEXT


@pytest.mark.parametrize("algorithm", RSA)
@pytest.mark.parametrize("length", [384, 512])
def test_a_wrapped_key_longer_than_what_follows_is_refused(algorithm: Algorithm, length: int) -> None:
    header = pack_header(algorithm, REF, bytes(length))
    for end in (25, 26, 27, len(header) - 1, len(header), len(header) + 27):
        assert reason_of(text_of((header + bytes(28))[:end])) is Reason.INVALID_CIPHERTEXT
    assert reason_of(text_of(header + bytes(28))) is None


def test_the_same_bytes_read_as_another_modulus_are_another_header() -> None:
    """The length is part of the header, so part of what the tag covers."""
    raw = bytearray(base64.b64decode(blob(RSA[0], size=200, wrapped=384).serialise()))
    raw[24:26] = (512).to_bytes(2)
    assert envelope.parse(text_of(bytes(raw)), where="it").header != blob(RSA[0], wrapped=384).header


@pytest.mark.parametrize("ciphertext", [0, 1, 15, 17, 31, 4095])
def test_cbc_ciphertexts_are_whole_blocks_and_at_least_one(ciphertext: int) -> None:
    raw = pack_header(CBC, REF) + bytes(16 + ciphertext + 32)
    assert reason_of(text_of(raw)) is Reason.INVALID_CIPHERTEXT


@pytest.mark.parametrize(
    ("ciphertext", "limit", "sizes"),
    [
        pytest.param(16, 4096, range(16), id="one-block"),
        pytest.param(32, 4096, range(16, 32), id="two-blocks"),
        pytest.param(4112, 4096, range(4096, 4112), id="the-largest"),
        pytest.param(4128, 4096, None, id="a-block-too-many"),
        pytest.param(16, 0, range(16), id="only-empty-values-allowed"),
        pytest.param(32, 15, None, id="above-a-lower-limit"),
        pytest.param(32, 16, range(16, 32), id="perhaps-at-a-lower-limit"),
    ],
)
def test_under_cbc_what_cannot_fit_is_refused_and_what_can_is_left_to_whoever_opens(
    ciphertext: int, limit: int, sizes: range | None
) -> None:
    text = text_of(pack_header(CBC, REF) + bytes(16 + ciphertext + 32))
    if sizes is not None:
        assert envelope.parse(text, where="it", limit=limit).plaintext_sizes == sizes
        return
    with pytest.raises(PlaintextTooLarge, match=f"is {ciphertext - 16} bytes, at most {limit} "):
        envelope.parse(text, where="it", limit=limit)


@given(st.sampled_from(Algorithm), st.integers(0, 4096))
def test_the_size_of_a_plaintext_is_among_those_its_blob_allows(algorithm: Algorithm, size: int) -> None:
    sizes = envelope.parse(blob(algorithm, size=size).serialise(), where="it").plaintext_sizes
    assert size in sizes
    assert len(sizes) == (16 if algorithm is CBC else 1)


def test_a_full_value_fits_into_the_longest_text_under_every_algorithm() -> None:
    lengths = [len(blob(a, size=4096, wrapped=512 if a in RSA else 0).serialise()) for a in Algorithm]
    assert max(lengths) == 6216


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
@pytest.mark.parametrize("algorithm", [algorithm for algorithm in Algorithm if algorithm is not CBC])
def test_the_size_is_checked_exactly(algorithm: Algorithm, size: int, limit: int, accepted: bool) -> None:
    text = blob(algorithm, size=size).serialise()
    if accepted:
        assert envelope.parse(text, where="it", limit=limit).plaintext_sizes == range(size, size + 1)
        return
    with pytest.raises(PlaintextTooLarge, match=f"data key 'password' is {size} bytes, at most {limit} "):
        envelope.parse(text, where="data key 'password'", limit=limit)


def test_text_longer_than_any_blob_is_refused_before_it_is_decoded() -> None:
    assert reason_of("!" * 6216) is Reason.INVALID_CIPHERTEXT
    assert reason_of("!" * 6217) is Reason.PLAINTEXT_TOO_LARGE
    assert reason_of("!" * 10_000_000) is Reason.PLAINTEXT_TOO_LARGE


@pytest.mark.parametrize(
    ("algorithm", "bytes_more"),
    [
        (Algorithm.AES_256_GCM, 52),
        (Algorithm.RSA_OAEP_SHA1_AES_256_GCM, 438),
        (Algorithm.RSA_OAEP_SHA256_AES_256_GCM, 438),
        (Algorithm.AES_256_CBC_HMAC_SHA256, 78),
        (Algorithm.AES_256_GCM_IV16, 56),
    ],
)
def test_a_blob_is_so_much_larger_than_its_plaintext_and_starts_alike(algorithm: Algorithm, bytes_more: int) -> None:
    text = blob(algorithm, size=10).serialise()
    assert len(base64.b64decode(text)) == 10 + bytes_more
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
    assert repr(blob(CBC)) == f"<Blob AES_256_CBC_HMAC_SHA256 {uuid.UUID(int=7)}/v2 of up to 15 bytes>"
