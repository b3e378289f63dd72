# SPDX-License-Identifier: Apache-2.0
"""A request that ends the library: it costs the others three workers and no more, and no innocent one is refused."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import suspects, wire
from strongroom.hsm.api import OpenItem, Token
from strongroom.hsm.suspects import MEMORY_SECONDS, Standing, Suspects
from testbed.hsmkeys import KeyInUse
from testbed.shim import Shim

OpenToken = Callable[..., Awaitable[Token]]
MakeKey = Callable[..., Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]
PidOf = Callable[[Token], int]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_request_is_suspect_then_refused_then_forgotten() -> None:
    clock = Clock()
    memory = Suspects(clock)
    digest, other = memory.digest(wire.Find(b"a")), memory.digest(wire.Find(b"b"))
    assert digest == memory.digest(wire.Find(b"a")) != other
    memory.blame(digest, alone=False)
    memory.blame(digest, alone=False)
    assert memory.standing(digest) is Standing.SUSPECT
    memory.blame(digest, alone=True)
    assert memory.standing(digest) is Standing.SUSPECT
    memory.blame(digest, alone=True)
    assert memory.standing(digest) is Standing.REFUSED
    assert memory.standing(other) is Standing.CLEAR
    clock.now = MEMORY_SECONDS
    assert memory.standing(digest) is Standing.CLEAR


def test_an_answer_clears_a_suspect() -> None:
    memory = Suspects()
    digest = memory.digest(wire.Find(b"a"))
    memory.blame(digest, alone=False)
    memory.clear(digest)
    assert memory.standing(digest) is Standing.CLEAR


def test_the_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "_MAX_REMEMBERED", 3)
    memory = Suspects()
    digests = [memory.digest(wire.Find(b"%d" % number)) for number in range(5)]
    for digest in digests:
        memory.blame(digest, alone=False)
    assert [memory.standing(digest) is Standing.SUSPECT for digest in digests] == [False, False, True, True, True]


async def _open_until_settled(key: KeyInUse, item: OpenItem) -> bytes | StrongroomError:
    """As a reconciler does: tried again whenever the token was away."""
    while True:
        try:
            return await key.open(item)
        except StrongroomError as error:
            if error.reason is not Reason.HSM_UNAVAILABLE:
                return error
        await asyncio.sleep(0.01)


@pytest.mark.hsm
@pytest.mark.parametrize("fault", ["crashes", "hangs"])
async def test_a_request_that_ends_the_library_costs_three_workers_and_the_others_nothing_but_time(
    shim: Shim, open_token: OpenToken, make_key: MakeKey, wait_until: WaitUntil, fault: str
) -> None:
    token = await open_token(sessions=4, operationTimeoutSeconds=2)
    key = await make_key(token)
    plaintexts = [b"value %d" % number for number in range(8)]
    good = [await key.seal(plaintext) for plaintext in plaintexts]
    poison = await key.seal(b"poison")
    shim.set("C_Decrypt", input=poison.body.hex(), **{fault: True})
    outcomes = await asyncio.gather(*(_open_until_settled(key, each) for each in (poison, *good)))
    assert outcomes[1:] == plaintexts
    assert isinstance(outcomes[0], StrongroomError)
    assert outcomes[0].reason is Reason.HSM_ERROR
    assert token.statistics.worker_losses == 3
    with pytest.raises(StrongroomError, match="is not sent again for 10 minutes"):
        await key.open(poison)
    await wait_until(lambda: token.available)
    assert (token.statistics.in_flight, sum(token.statistics.waiting.values())) == (0, 0)


@pytest.mark.hsm
async def test_a_request_whose_caller_has_gone_is_remembered(
    shim: Shim, open_token: OpenToken, make_key: MakeKey, wait_until: WaitUntil
) -> None:
    token = await open_token(operationTimeoutSeconds=1)
    key = await make_key(token)
    poison = await key.seal(b"poison")
    shim.set("C_Decrypt", input=poison.body.hex(), hangs=True)
    for losses in (1, 2, 3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await key.open(poison)
        await wait_until(lambda losses=losses: token.statistics.worker_losses == losses and token.available)  # type: ignore[misc]
    outcome = await _open_until_settled(key, poison)
    assert isinstance(outcome, StrongroomError)
    assert outcome.reason is Reason.HSM_ERROR


@pytest.mark.hsm
async def test_innocent_requests_in_flight_at_several_kills_are_all_answered(
    hsm: Token, key: KeyInUse, pid_of: PidOf, wait_until: WaitUntil
) -> None:
    plaintexts = [b"value %d" % number for number in range(8)]
    sealed = [await key.seal(plaintext) for plaintext in plaintexts]
    for kill in range(1, 4):
        os.kill(pid_of(hsm), signal.SIGSTOP)
        calls = asyncio.gather(*(_open_until_settled(key, each) for each in sealed))
        await wait_until(lambda: hsm.statistics.in_flight >= 2)
        os.kill(pid_of(hsm), signal.SIGKILL)
        assert await calls == plaintexts
        assert hsm.statistics.worker_losses == kill


@pytest.mark.hsm
async def test_a_lost_token_makes_no_suspects(shim: Shim, hsm: Token, key: KeyInUse, wait_until: WaitUntil) -> None:
    sealed = await key.seal(b"value")
    shim.set("C_Decrypt", returns=0x32)  # DEVICE_REMOVED
    for losses in (1, 2, 3):
        with pytest.raises(StrongroomError) as caught:
            await key.open(sealed)
        assert caught.value.reason is Reason.HSM_UNAVAILABLE
        await wait_until(lambda losses=losses: hsm.statistics.worker_losses == losses and hsm.available)  # type: ignore[misc]
    shim.clear("C_Decrypt")
    assert await _open_until_settled(key, sealed) == b"value"
