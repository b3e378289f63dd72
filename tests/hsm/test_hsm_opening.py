# SPDX-License-Identifier: Apache-2.0
"""From the PIN file to open sessions: what is asked for in which order, and what each step may cost."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import supervisor
from strongroom.hsm.api import Token, TokenState
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import KeyInUse, new_ref
from testbed.shim import Habits, Shim
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]
MakeKey = Callable[..., Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]
PidOf = Callable[[Token], int]


async def _reason(call: Awaitable[object]) -> Reason:
    with pytest.raises(StrongroomError) as caught:
        await call
    return caught.value.reason


async def test_as_many_sessions_are_opened_as_wanted_and_allowed(shim: Shim, open_token: OpenToken) -> None:
    token = await open_token(sessions=6)
    assert token.statistics.sessions == 6
    await token.close()
    shim.behave(Habits(session_limit=4))  # the anchor's is one of them
    token = await open_token(sessions=6)
    assert token.available
    assert token.statistics.sessions == 3


async def test_sessions_that_do_not_open_never_make_a_good_pin_refused(
    shim: Shim, open_token: OpenToken, wait_until: WaitUntil
) -> None:
    shim.behave(Habits(read_write_only=True))  # the anchor's session opens, those for values do not
    token = await open_token()
    await wait_until(lambda: token.statistics.logins > 4)
    assert token.state is TokenState.UNAVAILABLE
    shim.behave(Habits())
    await wait_until(lambda: token.available)


@pytest.mark.parametrize("function", ["C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession"])
async def test_token_that_hangs_costs_no_login_and_heals_at_once(
    shim: Shim, hsm: Token, pid_of: PidOf, wait_until: WaitUntil, function: str
) -> None:
    shim.set(function, hangs=True)
    calls = shim.calls(function)
    os.kill(pid_of(hsm), signal.SIGKILL)
    await wait_until(lambda: shim.calls(function) > calls)
    assert hsm.state is TokenState.UNAVAILABLE
    assert await _reason(hsm.info()) is Reason.HSM_UNAVAILABLE
    assert hsm.statistics.logins == 1
    shim.clear(function)
    started = time.monotonic()
    await wait_until(lambda: hsm.available)
    assert time.monotonic() - started < 5
    assert hsm.statistics.logins == 2


async def test_attempt_that_hung_for_its_whole_time_is_followed_by_another_at_once(
    shim: Shim, open_token: OpenToken, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_INTERPRETER_SECONDS", 1.0)
    monkeypatch.setattr(supervisor, "_FIRST_RETRY_SECONDS", 1.0)
    shim.set("C_GetTokenInfo", hangs=True)
    token = await open_token(operationTimeoutSeconds=0.5)
    await wait_until(lambda: token.statistics.worker_starts == 2)
    started = time.monotonic()
    await wait_until(lambda: token.statistics.worker_starts == 3)
    assert time.monotonic() - started < 2.5  # the attempt's 1.5 s and half a second, not the backoff besides
    shim.clear("C_GetTokenInfo")


async def test_token_without_a_login_needs_no_pin_file(
    shim: Shim, open_token: OpenToken, make_key: MakeKey, new_token: SoftHsmToken
) -> None:
    shim.behave(Habits(login_pin=new_token.pin_file.read_text()))
    new_token.pin_file.unlink()
    token = await open_token(pinFile="", profileChanges={"login": False})
    assert token.available, token.problem
    key = await make_key(token)
    assert await key.open(await key.seal(b"value")) == b"value"
    assert (token.statistics.logins, shim.calls("C_Login")) == (0, 0)


async def test_files_of_the_token_that_are_open_to_others_are_refused_until_they_are_closed(
    open_token: OpenToken, new_token: SoftHsmToken, wait_until: WaitUntil
) -> None:
    new_token.directory.chmod(0o755)
    new_token.tokens.chmod(0o755)
    token = await open_token()
    assert token.state is TokenState.MISCONFIGURED
    assert token.problem is not None
    assert f"the token's directory {new_token.tokens} is open to everyone" in token.problem.message
    assert f"chmod -R o= {new_token.tokens}" in token.problem.hint
    assert token.statistics.worker_starts == 0
    new_token.tokens.chmod(0o770)
    await wait_until(lambda: token.available)


async def test_public_key_is_asked_for_once_in_a_workers_life_however_many_want_it(
    hsm: Token, make_key: MakeKey, pid_of: PidOf, wait_until: WaitUntil
) -> None:
    key = await make_key(hsm, KeySpec.RSA_3072)
    os.kill(pid_of(hsm), signal.SIGKILL)
    await wait_until(lambda: not hsm.available)
    assert await _reason(hsm.public_key(key.ref)) is Reason.HSM_UNAVAILABLE
    await wait_until(lambda: hsm.available)
    found = hsm.statistics.operations["find"]
    shown = await asyncio.gather(*(hsm.public_key(key.ref) for _ in range(20)))
    assert set(shown) == {key.public_key}
    assert hsm.statistics.operations["find"] == found + 1


async def test_public_key_that_is_not_there_is_not_found(hsm: Token, key: KeyInUse) -> None:
    assert await _reason(hsm.public_key(new_ref())) is Reason.KEY_VERSION_NOT_FOUND
    assert await hsm.public_key(key.ref) == b""
