# SPDX-License-Identifier: Apache-2.0
"""Encrypting and decrypting in a real token, and what hostile values meet there."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import InvalidCiphertext, PlaintextTooLarge, Reason, StrongroomError
from strongroom.hsm.admission import MAX_WAITING
from strongroom.hsm.api import OpenItem, SealItem, Share, Token, TokenState
from strongroom.hsm.values import MAX_AAD_BYTES
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.plaintext import Plaintext
from testbed.hsmkeys import AAD, KeyInUse
from testbed.shim import Shim

pytestmark = pytest.mark.hsm

MakeKey = Callable[..., Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]

_MARKER = b"plaintext-that-must-not-be-seen"


async def _seal_all(key: KeyInUse, items: list[SealItem]) -> list[Any]:
    return list(await key.token.seal(key.ref, key.algorithm, items, share=Share.API))


async def _open_all(key: KeyInUse, items: list[OpenItem]) -> list[bytes]:
    opened = await key.token.open(key.ref, key.algorithm, items, share=Share.RECONCILE)
    return [plaintext.reveal() for plaintext in opened]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4095, 4096])
@pytest.mark.parametrize("aad", [b"x", bytes(MAX_AAD_BYTES)], ids=["short-aad", "longest-aad"])
async def test_a_value_comes_back(key: KeyInUse, size: int, aad: bytes) -> None:
    plaintext = bytes(index % 251 for index in range(size))
    item = await key.seal(plaintext, aad)
    assert (len(item.nonce), len(item.body)) == (12, size + 16)
    assert await key.open(item) == plaintext


async def test_a_batch_comes_back_in_order(key: KeyInUse) -> None:
    plaintexts = [b"%d" % index * index for index in range(64)]
    sealed = await _seal_all(key, [SealItem(Plaintext(each), b"%d" % index) for index, each in enumerate(plaintexts)])
    items = [OpenItem(each.nonce, each.body, b"%d" % index, "value") for index, each in enumerate(sealed)]
    assert await _open_all(key, items) == plaintexts
    assert await _seal_all(key, []) == []
    assert await _open_all(key, []) == []


async def test_no_nonce_comes_twice(key: KeyInUse) -> None:
    batches = [await _seal_all(key, [SealItem(Plaintext(b""), AAD)] * 64) for _ in range(8)]
    nonces = [sealed.nonce for batch in batches for sealed in batch]
    assert len(set(nonces)) == len(nonces) == 512


def _flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0x01
    return bytes(changed)


def forged(good: OpenItem) -> OpenItem:
    return replace(good, body=_flip(good.body, 0))


_TAMPERED: dict[str, Callable[[OpenItem], OpenItem]] = {
    "nonce": lambda good: replace(good, nonce=_flip(good.nonce, 0)),
    "first-byte": forged,
    "middle": lambda good: replace(good, body=_flip(good.body, len(good.body) // 2)),
    "tag": lambda good: replace(good, body=_flip(good.body, -1)),
    "tag-start": lambda good: replace(good, body=_flip(good.body, -16)),
    "truncated": lambda good: replace(good, body=good.body[:-1]),
    "tag-alone": lambda good: replace(good, body=good.body[-16:]),
    "shorter-than-tag": lambda good: replace(good, body=good.body[:15]),
    "empty": lambda good: replace(good, body=b""),
    "longer": lambda good: replace(good, body=good.body + b"\0"),
    "far-too-long": lambda good: replace(good, body=good.body * 300),
    "no-nonce": lambda good: replace(good, nonce=b""),
    "long-nonce": lambda good: replace(good, nonce=good.nonce + b"\0" * 4),
    "zero-nonce": lambda good: replace(good, nonce=bytes(12)),
    "a-wrapped-key": lambda good: replace(good, wrapped_key=bytes(384)),
    "other-aad": lambda good: replace(good, aad=AAD + b"!"),
    "shorter-aad": lambda good: replace(good, aad=AAD[:-1]),
}


@pytest.mark.parametrize("name", _TAMPERED)
async def test_a_tampered_value_is_invalid_and_costs_nobody_else(hsm: Token, key: KeyInUse, name: str) -> None:
    good = await key.seal(_MARKER)
    bad = replace(_TAMPERED[name](good), where="data key 'password'")
    outcomes = await asyncio.gather(
        *(key.open(bad if turn % 2 else good) for turn in range(20)), return_exceptions=True
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
    shim: Shim, hsm: Token, key: KeyInUse
) -> None:
    bad = forged(await key.seal(_MARKER))
    before = shim.calls("C_Encrypt")
    outcomes = await asyncio.gather(*(key.open(bad) for _ in range(40)), return_exceptions=True)
    assert all(isinstance(outcome, InvalidCiphertext) for outcome in outcomes)
    assert shim.calls("C_Encrypt") == before + 1
    assert hsm.statistics.worker_losses == 0


async def test_a_token_that_decrypts_nothing_any_more_is_away_and_the_value_not_bad(
    shim: Shim, hsm: Token, key: KeyInUse, wait_until: WaitUntil
) -> None:
    good = await key.seal(_MARKER)
    with pytest.raises(InvalidCiphertext):  # the canary is there now
        await key.open(forged(good))
    for losses, code in enumerate((0x05, 0x30), 1):  # GENERAL_ERROR, DEVICE_ERROR
        shim.set("C_Decrypt", returns=code)
        with pytest.raises(StrongroomError) as caught:
            await key.open(good)
        assert caught.value.reason is Reason.HSM_UNAVAILABLE
        shim.clear("C_Decrypt")
        await wait_until(lambda losses=losses: hsm.statistics.worker_losses == losses and hsm.available)  # type: ignore[misc]
        assert await key.open(good) == _MARKER


async def test_another_keys_value_is_invalid(hsm: Token, key: KeyInUse, make_key: MakeKey) -> None:
    item = await key.seal(b"value")
    with pytest.raises(InvalidCiphertext):
        await (await make_key(hsm)).open(item)
    assert hsm.available


async def test_the_first_bad_value_of_a_batch_is_named_and_nothing_is_released(key: KeyInUse) -> None:
    good = [await key.seal(b"value") for _ in range(4)]
    items = [
        replace(forged(item) if index >= 2 else item, where=f"data key '{index}'") for index, item in enumerate(good)
    ]
    with pytest.raises(InvalidCiphertext, match="data key '2' does not decrypt") as caught:
        await _open_all(key, items)
    assert caught.value.ckr == "CKR_GENERAL_ERROR"


async def test_an_absent_version_on_a_healthy_token_is_not_found(hsm: Token, key: KeyInUse) -> None:
    absent = KeyInUse(hsm, KeyVersionRef(key.ref.key_id, KeyVersion(2)), key.algorithm, b"")
    item = await key.seal(b"value")
    with pytest.raises(StrongroomError) as caught:
        await absent.open(item)
    assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND
    assert str(absent.ref) in caught.value.message
    assert hsm.available


async def test_a_key_destroyed_behind_our_back_is_not_found(
    hsm: Token, key: KeyInUse, outsider: Callable[[str, KeyVersionRef], str]
) -> None:
    item = await key.seal(b"value")
    outsider("destroy", key.ref)
    with pytest.raises(StrongroomError) as caught:
        await key.open(item)
    assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND
    assert hsm.available


async def test_limits_are_refused_before_the_token_is_asked(hsm: Token, key: KeyInUse) -> None:
    with pytest.raises(PlaintextTooLarge):
        SealItem(Plaintext(bytes(4097)), AAD)
    for aad in (b"", bytes(MAX_AAD_BYTES + 1)):
        with pytest.raises(ValueError, match="additional data"):
            SealItem(Plaintext(b""), aad)
        with pytest.raises(ValueError, match="additional data"):
            OpenItem(bytes(12), bytes(16), aad, "value")
    with pytest.raises(ValueError, match="65 values"):
        await _seal_all(key, [SealItem(Plaintext(b""), AAD)] * 65)
    with pytest.raises(ValueError, match="public key"):
        await hsm.seal(key.ref, Algorithm.RSA_OAEP_SHA1_AES_256_GCM, [SealItem(Plaintext(b""), AAD)], share=Share.API)


@pytest.mark.parametrize("algorithm", [Algorithm.AES_256_GCM_IV16, Algorithm.AES_256_CBC_HMAC_SHA256])
async def test_an_algorithm_that_is_not_the_profiles_seals_nothing(
    hsm: Token, key: KeyInUse, algorithm: Algorithm
) -> None:
    with pytest.raises(StrongroomError) as caught:
        await KeyInUse(hsm, key.ref, algorithm, b"").seal(b"value")
    assert caught.value.reason is Reason.HSM_ERROR
    assert hsm.available


async def test_nothing_shows_a_plaintext_or_a_ciphertext(key: KeyInUse) -> None:
    item = SealItem(Plaintext(_MARKER), AAD)
    (sealed,) = await _seal_all(key, [item])
    value = OpenItem(sealed.nonce, sealed.body, AAD, "value")
    opened = await key.token.open(key.ref, key.algorithm, [value], share=Share.API)
    shown = f"{item!r} {sealed!r} {opened!r} {value!r}"
    assert _MARKER.decode() not in shown
    assert repr(sealed.body) not in shown


async def test_a_cancelled_call_gives_its_session_back(hsm: Token, key: KeyInUse, wait_until: WaitUntil) -> None:
    for _ in range(20):
        calls = [asyncio.ensure_future(key.seal(bytes(4096))) for _ in range(4)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert await key.open(await key.seal(b"value")) == b"value"
    await wait_until(lambda: hsm.statistics.in_flight == 0)  # what was cancelled goes on in the other session
    assert sum(hsm.statistics.waiting.values()) == 0


async def test_more_requests_than_may_wait_are_throttled(key: KeyInUse) -> None:
    room, more = MAX_WAITING + key.token._exchange.sessions.permits, 50
    outcomes = await asyncio.gather(*(key.seal(b"") for _ in range(room + more)), return_exceptions=True)
    throttled = [each for each in outcomes if isinstance(each, StrongroomError)]
    assert [each.reason for each in throttled] == [Reason.THROTTLED] * more
    assert len([each for each in outcomes if isinstance(each, OpenItem)]) == room


async def test_eight_callers_for_long_lose_nothing(hsm: Token, key: KeyInUse) -> None:
    async def caller(number: int) -> None:
        for turn in range(320):
            plaintext = b"%d/%d" % (number, turn)
            assert await key.open(await key.seal(plaintext)) == plaintext

    await asyncio.gather(*(caller(number) for number in range(8)))
    statistics = hsm.statistics
    assert statistics.operations["seal"] == statistics.operations["open"] == 2560
    assert (statistics.worker_starts, statistics.worker_losses, dict(statistics.failures)) == (1, 0, {})


async def test_what_is_wrong_with_an_rsa_value_is_never_told(hsm: Token, make_key: MakeKey) -> None:
    """Nor whether it is the wrapped key or the body: one answer, without a return code."""
    key = await make_key(hsm, KeySpec.RSA_3072)
    good = await key.seal(_MARKER)
    bad = [
        forged(good),
        replace(good, aad=b"other"),
        replace(good, wrapped_key=_flip(good.wrapped_key, -1)),
        replace(good, wrapped_key=bytes(len(good.wrapped_key))),
        replace(good, wrapped_key=b"\xff" * len(good.wrapped_key)),
        replace(good, wrapped_key=good.wrapped_key[1:]),
        replace(good, wrapped_key=b""),
        (await KeyInUse(hsm, key.ref, key.algorithm, (await make_key(hsm, KeySpec.RSA_3072)).public_key).seal(b"v")),
    ]
    answers = set()
    for item in bad:
        with pytest.raises(InvalidCiphertext) as caught:
            await key.open(item)
        answers.add((str(caught.value), caught.value.ckr))
    assert len(answers) == 1
    assert answers.pop()[1] == ""
    assert await key.open(good) == _MARKER
    assert hsm.statistics.worker_losses == 0


async def test_a_bad_rsa_value_costs_the_token_as_much_whatever_is_wrong_with_it(
    shim: Shim, hsm: Token, make_key: MakeKey
) -> None:
    key = await make_key(hsm, KeySpec.RSA_3072)
    good = await key.seal(_MARKER)
    costs = []
    for item in (
        forged(good),  # makes the canary
        forged(good),
        replace(good, aad=b"other"),
        replace(good, wrapped_key=_flip(good.wrapped_key, -1)),
        replace(good, wrapped_key=bytes(len(good.wrapped_key))),
    ):
        before = shim.calls("C_UnwrapKey")
        with pytest.raises(InvalidCiphertext):
            await key.open(item)
        costs.append(shim.calls("C_UnwrapKey") - before)
    assert len(set(costs)) == 1, costs
