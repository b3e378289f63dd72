# SPDX-License-Identifier: Apache-2.0
"""What changes while keys are in use: the profile, the token's behaviour, the memory that the library takes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import supervisor
from strongroom.hsm.api import Token
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import KeyInUse
from testbed.shim import Habits, Shim

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]
MakeKey = Callable[..., Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        pytest.param(KeySpec.RSA_3072, {"oaepHash": "sha256"}, id="oaep-hash"),
        pytest.param(KeySpec.AES_256, {"ivBytes": 16}, id="iv-length"),
    ],
)
async def test_values_of_an_earlier_profile_open_and_forged_ones_cost_nobody_anything(
    open_token: OpenToken, make_key: MakeKey, spec: KeySpec, changes: dict[str, object]
) -> None:
    before = await open_token(sessions=1)
    key = await make_key(before, spec)
    good = await key.seal(b"sealed before")
    await before.close()
    token = await open_token(sessions=1, profileChanges=changes)
    now = KeyInUse(token, key.ref, key.algorithm, key.public_key)
    assert await now.open(good) == b"sealed before"
    with pytest.raises(StrongroomError) as caught:
        await now.open(replace(good, body=bytes([good.body[0] ^ 1]) + good.body[1:]))
    assert caught.value.reason is Reason.INVALID_CIPHERTEXT
    assert await now.open(good) == b"sealed before"
    assert (token.available, token.statistics.worker_losses) == (True, 0)


async def test_a_key_that_is_found_unsafe_is_not_used_before_it_is_proved_again(
    shim: Shim, hsm: Token, key: KeyInUse
) -> None:
    good = await key.seal(b"value")
    shim.behave(Habits(accept_any_tag=True))
    with pytest.raises(StrongroomError, match="the token accepts altered ciphertext"):
        await hsm.verify(key.ref)
    for use in (key.seal(b"more"), key.open(good)):
        with pytest.raises(StrongroomError, match="the token accepts altered ciphertext") as caught:
            await use
        assert caught.value.reason is Reason.HSM_ERROR
    shim.behave(Habits())
    assert not hsm.proved(key.ref)
    await hsm.verify(key.ref)
    assert hsm.proved(key.ref)
    assert await key.open(good) == b"value"


async def test_a_worker_that_takes_too_much_memory_is_replaced_and_no_request_fails_under_way(
    monkeypatch: pytest.MonkeyPatch, open_token: OpenToken, make_key: MakeKey, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(supervisor, "_MEMORY_LOOK_SECONDS", 0.2)
    token = await open_token(sessions=2)
    key = await make_key(token)
    failures: list[str] = []

    async def use() -> None:
        while token.statistics.worker_losses < 2:
            try:
                await key.seal(b"value")
            except StrongroomError as error:
                failures.append(error.message)
                await asyncio.sleep(0.01)

    monkeypatch.setattr(supervisor, "_MAX_MEMORY_BYTES", 1)
    await asyncio.gather(*(use() for _ in range(8)))
    monkeypatch.setattr(supervisor, "_MAX_MEMORY_BYTES", 2**40)
    await wait_until(lambda: token.available)
    assert await key.open(await key.seal(b"afterwards")) == b"afterwards"
    replaced = "HSM 'default': the library's process used too much memory and is replaced"
    assert set(failures) <= {replaced}  # refused before they were sent: none was under way
    assert token.statistics.failures.keys() <= {Reason.HSM_UNAVAILABLE.value}
