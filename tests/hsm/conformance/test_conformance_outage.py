# SPDX-License-Identifier: Apache-2.0
"""Every token: it goes and comes back, its process dies, its PIN changes, and what was sealed before still opens."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import Token, TokenState
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import KeyInUse
from testbed.pkcs11token import Pkcs11Token, change_pin

pytestmark = pytest.mark.hsm

MakeKey = Callable[[KeySpec], Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]


async def test_a_token_that_was_away_is_there_again_with_its_keys(
    hsm: Token, new_token: Pkcs11Token, key_in_use: MakeKey, pid_of: Callable[[Token], int], wait_until: WaitUntil
) -> None:
    """Libraries keep files open, so a worker may go on without its token: the next one cannot."""
    key = await key_in_use(KeySpec.AES_256)
    item = await key.seal(b"value")
    away = new_token.tokens.with_name("away")
    new_token.tokens.rename(away)
    os.kill(pid_of(hsm), signal.SIGKILL)
    await wait_until(lambda: hsm.state in (TokenState.UNAVAILABLE, TokenState.MISCONFIGURED))
    with pytest.raises(StrongroomError) as caught:
        await key.open(item)
    assert caught.value.reason is Reason.HSM_UNAVAILABLE
    away.rename(new_token.tokens)
    await wait_until(lambda: hsm.available)
    assert await key.open(item) == b"value"


async def test_a_killed_worker_costs_only_what_was_in_flight(
    hsm: Token, key_in_use: MakeKey, pid_of: Callable[[Token], int], wait_until: WaitUntil
) -> None:
    key = await key_in_use(KeySpec.AES_256)
    item = await key.seal(b"value")
    calls = [asyncio.ensure_future(key.open(item)) for _ in range(50)]
    await asyncio.sleep(0)
    os.kill(pid_of(hsm), signal.SIGKILL)
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert outcome == b"value" or (
            isinstance(outcome, StrongroomError) and outcome.reason is Reason.HSM_UNAVAILABLE
        )
    await wait_until(lambda: hsm.available)
    assert await key.open(item) == b"value"


async def test_another_pin_is_used_once_the_file_has_it(
    hsm: Token, new_token: Pkcs11Token, key_in_use: MakeKey, pid_of: Callable[[Token], int], wait_until: WaitUntil
) -> None:
    key = await key_in_use(KeySpec.AES_256)
    item = await key.seal(b"value")
    change_pin(new_token, "another-pin-of-the-token")
    os.kill(pid_of(hsm), signal.SIGKILL)
    await wait_until(lambda: hsm.state is TokenState.PIN_INVALID)
    logins = hsm.statistics.logins
    with pytest.raises(StrongroomError) as caught:
        await key.open(item)
    assert caught.value.reason is Reason.HSM_PIN_INVALID
    assert hsm.statistics.logins == logins == 2
    new_token.pin_file.write_text("another-pin-of-the-token")
    await wait_until(lambda: hsm.available)
    assert await key.open(item) == b"value"
