# SPDX-License-Identifier: Apache-2.0
"""Logging in: a PIN that the token did not take is not tried again, since tokens lock after a few wrong ones."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import supervisor
from strongroom.hsm.api import Token, TokenState
from strongroom.hsm.pin import PinFile
from testbed.shim import Habits, Shim
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]
PidOf = Callable[[Token], int]
ReadAgain = Callable[[int], Awaitable[None]]

_FINAL_TRY = 0x20000
_LOCKED = 0x40000


@pytest.fixture
def pin_file_read_again(monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil) -> ReadAgain:
    """Waits until the PIN file has been read so many times more: after that, a PIN not tried is one refused."""
    monkeypatch.setattr(supervisor, "_PIN_POLL_SECONDS", 0.05)
    reads = 0
    read = PinFile.read

    def counted(pin_file: PinFile) -> bytearray:
        nonlocal reads
        reads += 1
        return read(pin_file)

    async def again(count: int) -> None:
        enough = reads + count + 1  # the one that counts last has been acted on, too
        await wait_until(lambda: reads >= enough)

    monkeypatch.setattr(PinFile, "read", counted)
    return again


async def _reason(call: Awaitable[Any]) -> Reason:
    with pytest.raises(StrongroomError) as caught:
        await call
    return caught.value.reason


async def test_a_wrong_pin_is_tried_once_and_then_only_when_the_file_changes(
    open_token: OpenToken,
    new_token: SoftHsmToken,
    wait_until: WaitUntil,
    pin_file_read_again: ReadAgain,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    right = new_token.pin_file.read_bytes()
    new_token.pin_file.write_bytes(b"wrong-pin-1234")
    token = await open_token()
    assert token.state is TokenState.PIN_INVALID
    assert token.problem is not None
    assert token.problem.reason is Reason.HSM_PIN_INVALID
    assert token.problem.ckr == "CKR_PIN_INCORRECT"
    assert await _reason(token.info()) is Reason.HSM_PIN_INVALID
    new_token.pin_file.write_bytes(b"wrong-pin-1234\n")  # touched, and the same PIN
    await pin_file_read_again(2)
    assert token.statistics.logins == 1
    new_token.pin_file.write_bytes(b"wrong-pin-5678")
    await wait_until(lambda: token.statistics.logins == 2)
    assert token.state is TokenState.PIN_INVALID
    new_token.pin_file.write_bytes(right)
    await wait_until(lambda: token.available)
    assert token.statistics.logins == 3
    shown = f"{caplog.text} {token.statistics}"
    for pin in ("wrong-pin-1234", "wrong-pin-5678", right.decode()):
        assert pin not in shown


async def test_a_wrong_pin_after_a_restart_of_the_worker_is_tried_once_too(
    hsm: Token, new_token: SoftHsmToken, pid_of: PidOf, wait_until: WaitUntil, pin_file_read_again: ReadAgain
) -> None:
    new_token.pin_file.write_bytes(b"wrong-pin-1234")
    os.kill(pid_of(hsm), signal.SIGKILL)
    await wait_until(lambda: hsm.state is TokenState.PIN_INVALID)
    await pin_file_read_again(2)
    assert hsm.statistics.logins == 2


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0xA0, "CKR_PIN_INCORRECT"),
        (0xA2, "CKR_PIN_LEN_RANGE"),
        (0xA4, "CKR_PIN_LOCKED"),
        (0x103, "CKR_USER_TYPE_INVALID"),
    ],
)
async def test_a_login_that_is_refused_is_tried_once(
    shim: Shim,
    open_token: OpenToken,
    new_token: SoftHsmToken,
    pin_file_read_again: ReadAgain,
    code: int,
    name: str,
) -> None:
    shim.set("C_Login", returns=code)
    token = await open_token()
    assert token.problem is not None
    assert (token.state, token.problem.reason, token.problem.ckr) == (
        TokenState.PIN_INVALID,
        Reason.HSM_PIN_INVALID,
        name,
    )
    assert f"the login to the token {new_token.label!r} was refused ({name})" in str(token.problem)
    shim.clear("C_Login")
    await pin_file_read_again(2)
    assert shim.calls("C_Login") == token.statistics.logins == 1


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x05, "CKR_GENERAL_ERROR"),
        (0x06, "CKR_FUNCTION_FAILED"),
        (0x30, "CKR_DEVICE_ERROR"),
        (0x82, "CKR_OBJECT_HANDLE_INVALID"),
        (0x101, "CKR_USER_NOT_LOGGED_IN"),
        (0x80000042, "CKR_VENDOR_DEFINED+0x42"),
    ],
)
async def test_a_login_whose_answer_says_nothing_of_the_pin_is_put_off(
    shim: Shim, open_token: OpenToken, new_token: SoftHsmToken, pin_file_read_again: ReadAgain, code: int, name: str
) -> None:
    shim.set("C_Login", returns=code)
    token = await open_token()
    assert token.problem is not None
    assert (token.state, token.problem.reason) == (TokenState.UNAVAILABLE, Reason.HSM_UNAVAILABLE)
    assert f"the token said {name}" in token.problem.message
    assert "in 10 minutes" in token.problem.hint
    shim.clear("C_Login")
    await pin_file_read_again(2)
    assert shim.calls("C_Login") == token.statistics.logins == 1


@pytest.mark.parametrize("code", [0x32, 0xE0, 0xB3])  # DEVICE_REMOVED, TOKEN_NOT_PRESENT, SESSION_HANDLE_INVALID
async def test_a_login_that_fails_for_the_device_is_tried_again(
    shim: Shim, open_token: OpenToken, wait_until: WaitUntil, code: int
) -> None:
    shim.set("C_Login", returns=code)
    token = await open_token()
    assert token.state is TokenState.UNAVAILABLE
    await wait_until(lambda: shim.calls("C_Login") > 4)
    shim.clear("C_Login")
    await wait_until(lambda: token.available)


@pytest.mark.parametrize(("flags", "what"), [(_LOCKED, "is locked"), (_FINAL_TRY, "one more wrong PIN locks")])
async def test_a_token_that_is_or_would_be_locked_is_not_logged_into_whatever_the_pin(
    shim: Shim, open_token: OpenToken, new_token: SoftHsmToken, wait_until: WaitUntil, flags: int, what: str
) -> None:
    shim.behave(Habits(token_flags=flags))
    token = await open_token()
    for pin in (b"wrong-pin-1234", new_token.pin_file.read_bytes()):
        assert token.state is TokenState.MISCONFIGURED
        assert token.problem is not None
        assert token.problem.reason is Reason.HSM_PIN_INVALID
        assert what in token.problem.message
        assert "no login is tried" in token.problem.message
        new_token.pin_file.write_bytes(pin)
        starts = token.statistics.worker_starts
        await wait_until(lambda starts=starts: token.statistics.worker_starts >= starts + 2)  # type: ignore[misc]
    assert shim.calls("C_Login") == token.statistics.logins == 0
    shim.behave(Habits())  # as after the right PIN was given with the vendor's tool
    await wait_until(lambda: token.available)


@pytest.mark.parametrize(
    "fault", [{"crashes": True}, {"exits": True}, {"hangs": True}], ids=lambda fault: next(iter(fault))
)
async def test_a_login_that_ends_or_hangs_the_library_is_tried_three_times_and_then_put_off(
    shim: Shim,
    open_token: OpenToken,
    new_token: SoftHsmToken,
    wait_until: WaitUntil,
    pin_file_read_again: ReadAgain,
    fault: dict[str, bool],
) -> None:
    right = new_token.pin_file.read_bytes()
    new_token.pin_file.write_bytes(b"wrong-pin-1234")
    shim.set("C_Login", **fault)
    token = await open_token(operationTimeoutSeconds=1)
    await wait_until(lambda: shim.calls("C_Login") == 3 and "without a word on the PIN" in str(token.problem))
    assert token.problem is not None
    assert token.problem.reason is Reason.HSM_UNAVAILABLE  # nobody has refused the PIN
    assert "in 10 minutes" in token.problem.hint
    await pin_file_read_again(2)
    assert shim.calls("C_Login") == 3
    shim.clear("C_Login")
    new_token.pin_file.write_bytes(right)
    await wait_until(lambda: token.available)
    assert shim.calls("C_Login") == 4


async def test_a_library_that_ends_before_the_login_has_cost_no_try(
    shim: Shim, open_token: OpenToken, wait_until: WaitUntil
) -> None:
    shim.set("C_GetTokenInfo", crashes=True)
    token = await open_token()
    await wait_until(lambda: token.statistics.worker_starts > 4)
    assert token.state is TokenState.UNAVAILABLE
    assert token.statistics.logins == 0
    shim.clear("C_GetTokenInfo")
    await wait_until(lambda: token.available)


async def test_a_refused_pin_that_comes_back_is_still_refused_and_says_so(
    open_token: OpenToken, new_token: SoftHsmToken, wait_until: WaitUntil, pin_file_read_again: ReadAgain
) -> None:
    wrong, other = b"wrong-pin-1234", b"wrong-pin-5678"
    new_token.pin_file.write_bytes(wrong)
    token = await open_token()
    new_token.pin_file.write_bytes(other)
    await wait_until(lambda: token.statistics.logins == 2)
    new_token.pin_file.write_bytes(wrong)
    await pin_file_read_again(2)
    away = new_token.pin_file.with_name("away")
    new_token.pin_file.rename(away)
    await wait_until(lambda: token.state is TokenState.MISCONFIGURED)
    away.rename(new_token.pin_file)
    await wait_until(lambda: token.state is TokenState.PIN_INVALID)
    assert token.problem is not None
    assert token.problem.reason is Reason.HSM_PIN_INVALID
    assert token.problem.ckr == "CKR_PIN_INCORRECT"
    assert "was refused" in token.problem.message
    assert await _reason(token.info()) is Reason.HSM_PIN_INVALID
    assert token.statistics.logins == 2
