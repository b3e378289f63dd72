# SPDX-License-Identifier: Apache-2.0
"""Every token: what goes in comes out, and nothing else does."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from strongroom.errors import InvalidCiphertext, StrongroomError
from strongroom.hsm.api import OpenItem, Share, Token, TokenState
from strongroom.hsm.values import MAX_AAD_BYTES
from strongroom.model.algorithms import Algorithm
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import AAD, KeyInUse

pytestmark = pytest.mark.hsm

MakeKey = Callable[[KeySpec], Awaitable[KeyInUse]]
_SIZES = (0, 1, 15, 16, 17, 4095, 4096)
_SPECS = pytest.mark.parametrize("spec", [KeySpec.AES_256, KeySpec.RSA_3072])


@_SPECS
async def test_values_of_every_size_come_back(key_in_use: MakeKey, spec: KeySpec) -> None:
    key = await key_in_use(spec)
    for size in _SIZES:
        for aad in (b"x", bytes(range(256)) * (MAX_AAD_BYTES // 256)):
            plaintext = bytes(index % 251 for index in range(size))
            item = await key.seal(plaintext, aad)
            assert len(item.nonce) == key.algorithm.nonce_bytes
            assert len(item.body) == key.algorithm.ciphertext_bytes(size) + key.algorithm.tag_bytes
            assert await key.open(item) == plaintext


async def test_an_rsa_key_of_4096_bits_works_too(key_in_use: MakeKey) -> None:
    key = await key_in_use(KeySpec.RSA_4096)
    item = await key.seal(bytes(4096))
    assert len(item.wrapped_key) == 512
    assert await key.open(item) == bytes(4096)


async def test_the_algorithm_is_the_profiles(hsm: Token, token_kind: str) -> None:
    """SoftHSM knows no other hash for OAEP than SHA-1."""
    rsa = {"softhsm": Algorithm.RSA_OAEP_SHA1_AES_256_GCM}.get(token_kind, Algorithm.RSA_OAEP_SHA256_AES_256_GCM)
    assert [hsm.algorithm(spec) for spec in KeySpec] == [Algorithm.AES_256_GCM, rsa, rsa]


def _flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0x01
    return bytes(changed)


_TAMPERED: dict[str, Callable[[OpenItem], OpenItem]] = {
    "nonce": lambda good: replace(good, nonce=_flip(good.nonce, 0)),
    "zero nonce": lambda good: replace(good, nonce=bytes(len(good.nonce))),
    "no nonce": lambda good: replace(good, nonce=b""),
    "long nonce": lambda good: replace(good, nonce=good.nonce + b"\0"),
    "first byte": lambda good: replace(good, body=_flip(good.body, 0)),
    "start of the tag": lambda good: replace(good, body=_flip(good.body, -16)),
    "end of the tag": lambda good: replace(good, body=_flip(good.body, -1)),
    "truncated": lambda good: replace(good, body=good.body[:-1]),
    "tag alone": lambda good: replace(good, body=good.body[-16:]),
    "shorter than the tag": lambda good: replace(good, body=good.body[:15]),
    "empty": lambda good: replace(good, body=b""),
    "longer": lambda good: replace(good, body=good.body + b"\0"),
    "far too long": lambda good: replace(good, body=good.body * 300),
    "additional data": lambda good: replace(good, aad=AAD[:-1]),
    "more additional data": lambda good: replace(good, aad=AAD + b"\0"),
}
_TAMPERED_WRAPPING: dict[str, Callable[[OpenItem], OpenItem]] = {
    "wrapped key": lambda good: replace(good, wrapped_key=_flip(good.wrapped_key, -1)),
    "wrapped key above the modulus": lambda good: replace(good, wrapped_key=b"\xff" * len(good.wrapped_key)),
    "wrapped key of zeros": lambda good: replace(good, wrapped_key=bytes(len(good.wrapped_key))),
    "short wrapped key": lambda good: replace(good, wrapped_key=good.wrapped_key[1:]),
    "no wrapped key": lambda good: replace(good, wrapped_key=b""),
}


@_SPECS
async def test_what_was_tampered_with_is_invalid_and_costs_nobody_else(
    hsm: Token, key_in_use: MakeKey, spec: KeySpec
) -> None:
    key = await key_in_use(spec)
    good = await key.seal(b"plaintext-that-must-not-be-seen")
    hostile = _TAMPERED | (_TAMPERED_WRAPPING if spec.asymmetric else {})
    for name, tamper in hostile.items():
        refused, opened = await asyncio.gather(key.open(tamper(good)), key.open(good), return_exceptions=True)
        assert isinstance(refused, InvalidCiphertext), (name, refused)
        assert opened == b"plaintext-that-must-not-be-seen", name
    assert hsm.state is TokenState.AVAILABLE
    assert hsm.statistics.worker_losses == 0


async def test_every_forged_wrapping_is_refused_in_the_same_words(key_in_use: MakeKey) -> None:
    """Whoever can tell a bad padding from a bad tag decrypts with it (Manger 2001)."""
    key = await key_in_use(KeySpec.RSA_3072)
    good = await key.seal(b"value")
    shown = set()
    for tamper in (_TAMPERED["end of the tag"], *_TAMPERED_WRAPPING.values()):
        with pytest.raises(InvalidCiphertext) as caught:
            await key.open(tamper(good))
        shown.add((caught.value.message, caught.value.hint))
    assert len(shown) == 1


@_SPECS
async def test_another_key_of_the_same_kind_does_not_open_it(key_in_use: MakeKey, spec: KeySpec) -> None:
    item = await (await key_in_use(spec)).seal(b"value")
    with pytest.raises(InvalidCiphertext):
        await (await key_in_use(spec)).open(item)


async def test_no_nonce_comes_twice(key_in_use: MakeKey) -> None:
    key = await key_in_use(KeySpec.AES_256)
    nonces = [(await key.seal(b"")).nonce for _ in range(200)]
    assert len(set(nonces)) == 200


async def test_many_callers_on_many_sessions_lose_nothing(
    open_token: Callable[..., Awaitable[Token]], key_in_use: MakeKey
) -> None:
    """More callers than sessions, of both shares, with forged values among them."""
    made = await key_in_use(KeySpec.AES_256)
    token = await open_token(sessions=16)
    key = KeyInUse(token, made.ref, made.algorithm)

    async def caller(number: int) -> None:
        share = Share.API if number % 2 else Share.RECONCILE
        for turn in range(40):
            plaintext = b"%d/%d" % (number, turn) * 50
            item = await key.seal(plaintext)
            assert await key.open(item, share=share) == plaintext
            if turn % 10 == 0:
                with pytest.raises(InvalidCiphertext):
                    await key.open(replace(item, body=_flip(item.body, -1)), share=share)

    await asyncio.gather(*(caller(number) for number in range(32)))
    assert (token.statistics.worker_starts, token.statistics.worker_losses) == (1, 0)


async def test_more_sessions_than_anybody_needs_are_no_problem(
    open_token: Callable[..., Awaitable[Token]], key_in_use: MakeKey
) -> None:
    made = await key_in_use(KeySpec.AES_256)
    token = await open_token(sessions=64)
    assert token.available, token.problem
    key = KeyInUse(token, made.ref, made.algorithm)
    items = await asyncio.gather(*(key.seal(b"%d" % number) for number in range(128)))
    assert await asyncio.gather(*(key.open(item) for item in items)) == [b"%d" % number for number in range(128)]


async def test_a_refusal_names_no_plaintext(key_in_use: MakeKey) -> None:
    key = await key_in_use(KeySpec.AES_256)
    item = await key.seal(b"plaintext-that-must-not-be-seen")
    with pytest.raises(StrongroomError) as caught:
        await key.open(_TAMPERED["truncated"](item))
    assert b"plaintext-that-must-not-be-seen".decode() not in f"{caught.value!r} {caught.value}"
