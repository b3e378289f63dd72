# SPDX-License-Identifier: Apache-2.0
"""Encrypting and decrypting in a real token, and what hostile values meet there."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from strongroom.errors import InvalidCiphertext, PlaintextTooLarge, Reason, StrongroomError
from strongroom.hsm.api import OpenItem, Sealed, SealItem, Token, TokenState
from strongroom.hsm.values import MAX_AAD_BYTES
from strongroom.model.ids import KeyVersion, KeyVersionRef
from strongroom.model.plaintext import Plaintext
from tests.hsm.faults import Faults

pytestmark = pytest.mark.hsm

_AAD = b"strongroom/v1 additional data"
_MARKER = b"plaintext-that-must-not-be-seen"


async def _seal(token: Token, key: KeyVersionRef, plaintext: bytes, aad: bytes = _AAD) -> Sealed:
    (sealed,) = await token.seal(key, [SealItem(Plaintext(plaintext), aad)])
    return sealed


async def _open(token: Token, key: KeyVersionRef, sealed: Sealed, aad: bytes = _AAD) -> bytes:
    (plaintext,) = await token.open(key, [OpenItem(sealed.nonce, sealed.body, aad, "value")])
    return plaintext.reveal()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4095, 4096])
@pytest.mark.parametrize("aad", [b"x", bytes(MAX_AAD_BYTES)], ids=["short-aad", "longest-aad"])
async def test_a_value_comes_back(hsm: Token, key: KeyVersionRef, size: int, aad: bytes) -> None:
    plaintext = bytes(index % 251 for index in range(size))
    sealed = await _seal(hsm, key, plaintext, aad)
    assert (len(sealed.nonce), len(sealed.body)) == (12, size + 16)
    assert await _open(hsm, key, sealed, aad) == plaintext


async def test_a_batch_comes_back_in_order(hsm: Token, key: KeyVersionRef) -> None:
    plaintexts = [b"%d" % index * index for index in range(64)]
    sealed = await hsm.seal(key, [SealItem(Plaintext(each), b"%d" % index) for index, each in enumerate(plaintexts)])
    items = [OpenItem(each.nonce, each.body, b"%d" % index, "value") for index, each in enumerate(sealed)]
    assert [each.reveal() for each in await hsm.open(key, items)] == plaintexts
    assert await hsm.seal(key, []) == []
    assert await hsm.open(key, []) == []


async def test_no_nonce_comes_twice(hsm: Token, key: KeyVersionRef) -> None:
    batches = [await hsm.seal(key, [SealItem(Plaintext(b""), _AAD)] * 64) for _ in range(8)]
    nonces = [sealed.nonce for batch in batches for sealed in batch]
    assert len(set(nonces)) == len(nonces) == 512


_TAMPERED: dict[str, Callable[[Sealed], Sealed]] = {
    "nonce": lambda good: Sealed(_flip(good.nonce, 0), good.body),
    "first-byte": lambda good: Sealed(good.nonce, _flip(good.body, 0)),
    "middle": lambda good: Sealed(good.nonce, _flip(good.body, len(good.body) // 2)),
    "tag": lambda good: Sealed(good.nonce, _flip(good.body, -1)),
    "tag-start": lambda good: Sealed(good.nonce, _flip(good.body, -16)),
    "truncated": lambda good: Sealed(good.nonce, good.body[:-1]),
    "tag-alone": lambda good: Sealed(good.nonce, good.body[-16:]),
    "shorter-than-tag": lambda good: Sealed(good.nonce, good.body[:15]),
    "empty": lambda good: Sealed(good.nonce, b""),
    "longer": lambda good: Sealed(good.nonce, good.body + b"\0"),
    "far-too-long": lambda good: Sealed(good.nonce, good.body * 300),
    "no-nonce": lambda good: Sealed(b"", good.body),
    "long-nonce": lambda good: Sealed(good.nonce + b"\0" * 4, good.body),
    "zero-nonce": lambda good: Sealed(bytes(12), good.body),
}


def _flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0x01
    return bytes(changed)


@pytest.mark.parametrize("name", _TAMPERED)
async def test_a_tampered_value_is_invalid_and_costs_nobody_else(hsm: Token, key: KeyVersionRef, name: str) -> None:
    good = await _seal(hsm, key, _MARKER)
    bad = _TAMPERED[name](good)
    item = OpenItem(bad.nonce, bad.body, _AAD, "data key 'password'")
    outcomes = await asyncio.gather(
        *(hsm.open(key, [item]) if turn % 2 else _open(hsm, key, good) for turn in range(20)), return_exceptions=True
    )
    for turn, outcome in enumerate(outcomes):
        if turn % 2:
            assert isinstance(outcome, InvalidCiphertext)
            assert "data key 'password'" in outcome.message
            assert _MARKER.decode() not in str(outcome) + repr(outcome)
        else:
            assert outcome == _MARKER
    assert hsm.state is TokenState.AVAILABLE
    assert hsm.statistics.worker_losses == 0


async def test_forged_values_use_up_one_encryption_of_the_key_whatever_their_number(
    faults: Faults, hsm: Token, key: KeyVersionRef
) -> None:
    good = await _seal(hsm, key, _MARKER)
    forged = [OpenItem(good.nonce, _flip(good.body, 0), _AAD, "value")]
    before = faults.calls("C_Encrypt")
    outcomes = await asyncio.gather(*(hsm.open(key, forged) for _ in range(40)), return_exceptions=True)
    assert all(isinstance(outcome, InvalidCiphertext) for outcome in outcomes)
    assert faults.calls("C_Encrypt") == before + 1
    assert hsm.statistics.worker_losses == 0


async def test_a_token_that_decrypts_nothing_any_more_is_away_and_the_value_not_bad(
    faults: Faults, hsm: Token, key: KeyVersionRef, wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    good = await _seal(hsm, key, _MARKER)
    with pytest.raises(InvalidCiphertext):  # the canary is there now
        await hsm.open(key, [OpenItem(good.nonce, _flip(good.body, 0), _AAD, "value")])
    for losses, code in enumerate((0x05, 0x30), 1):  # GENERAL_ERROR, DEVICE_ERROR
        faults.set("C_Decrypt", returns=code)
        with pytest.raises(StrongroomError) as caught:
            await _open(hsm, key, good)
        assert caught.value.reason is Reason.HSM_UNAVAILABLE
        faults.clear("C_Decrypt")
        await wait_until(lambda losses=losses: hsm.statistics.worker_losses == losses and hsm.available)  # type: ignore[misc]
        assert await _open(hsm, key, good) == _MARKER


async def test_other_additional_data_and_another_key_are_invalid(
    hsm: Token, key: KeyVersionRef, make_key: Callable[[Token], Awaitable[KeyVersionRef]]
) -> None:
    sealed = await _seal(hsm, key, b"value")
    for other_key, aad in ((key, _AAD + b"!"), (key, _AAD[:-1]), (await make_key(hsm), _AAD)):
        with pytest.raises(InvalidCiphertext):
            await _open(hsm, other_key, sealed, aad)
    assert hsm.available


async def test_the_first_bad_value_of_a_batch_is_named_and_nothing_is_released(hsm: Token, key: KeyVersionRef) -> None:
    sealed = await hsm.seal(key, [SealItem(Plaintext(b"value"), _AAD)] * 4)
    items = [
        OpenItem(each.nonce, _flip(each.body, 0) if index >= 2 else each.body, _AAD, f"data key '{index}'")
        for index, each in enumerate(sealed)
    ]
    with pytest.raises(InvalidCiphertext, match="data key '2' does not decrypt") as caught:
        await hsm.open(key, items)
    assert caught.value.ckr == "CKR_GENERAL_ERROR"


async def test_an_absent_version_on_a_healthy_token_is_not_found(hsm: Token, key: KeyVersionRef) -> None:
    absent = KeyVersionRef(key.key_id, KeyVersion(2))
    sealed = await _seal(hsm, key, b"value")
    with pytest.raises(StrongroomError) as caught:
        await _open(hsm, absent, sealed)
    assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND
    assert str(absent) in caught.value.message
    assert hsm.available


async def test_a_key_destroyed_behind_our_back_is_not_found(
    hsm: Token, key: KeyVersionRef, outsider: Callable[[str, KeyVersionRef], str]
) -> None:
    sealed = await _seal(hsm, key, b"value")
    outsider("destroy", key)
    with pytest.raises(StrongroomError) as caught:
        await _open(hsm, key, sealed)
    assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND
    assert hsm.available


async def test_limits_are_refused_before_the_token_is_asked(hsm: Token, key: KeyVersionRef) -> None:
    with pytest.raises(PlaintextTooLarge):
        SealItem(Plaintext(bytes(4097)), _AAD)
    for aad in (b"", bytes(MAX_AAD_BYTES + 1)):
        with pytest.raises(ValueError, match="additional data"):
            SealItem(Plaintext(b""), aad)
        with pytest.raises(ValueError, match="additional data"):
            OpenItem(bytes(12), bytes(16), aad, "value")
    with pytest.raises(ValueError, match="65 values"):
        await hsm.seal(key, [SealItem(Plaintext(b""), _AAD)] * 65)


async def test_nothing_shows_a_plaintext_or_a_ciphertext(hsm: Token, key: KeyVersionRef) -> None:
    item = SealItem(Plaintext(_MARKER), _AAD)
    sealed = await _seal(hsm, key, _MARKER)
    (opened,) = await hsm.open(key, [OpenItem(sealed.nonce, sealed.body, _AAD, "value")])
    shown = f"{item!r} {sealed!r} {opened!r} {OpenItem(sealed.nonce, sealed.body, _AAD, 'value')!r}"
    assert _MARKER.decode() not in shown
    assert repr(sealed.body) not in shown


async def test_a_cancelled_call_gives_its_session_back(hsm: Token, key: KeyVersionRef) -> None:
    for _ in range(20):
        calls = [asyncio.ensure_future(_seal(hsm, key, bytes(4096))) for _ in range(4)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert await _open(hsm, key, await _seal(hsm, key, b"value")) == b"value"
    assert (hsm.statistics.in_flight, hsm.statistics.waiting) == (0, 0)


async def test_more_requests_than_may_wait_are_throttled(hsm: Token, key: KeyVersionRef) -> None:
    outcomes = await asyncio.gather(*(_seal(hsm, key, b"") for _ in range(1200)), return_exceptions=True)
    throttled = [each for each in outcomes if isinstance(each, StrongroomError)]
    assert {each.reason for each in throttled} == {Reason.THROTTLED}
    assert len(throttled) == 1200 - 1024 - 2
    assert len([each for each in outcomes if isinstance(each, Sealed)]) == 1026


async def test_eight_callers_for_long_lose_nothing(hsm: Token, key: KeyVersionRef) -> None:
    async def caller(number: int) -> None:
        for turn in range(320):
            plaintext = b"%d/%d" % (number, turn)
            assert await _open(hsm, key, await _seal(hsm, key, plaintext)) == plaintext

    await asyncio.gather(*(caller(number) for number in range(8)))
    statistics = hsm.statistics
    assert statistics.operations["seal"] == statistics.operations["open"] == 2560
    assert (statistics.worker_starts, statistics.worker_losses, dict(statistics.failures)) == (1, 0, {})
