# SPDX-License-Identifier: Apache-2.0
"""Tokens and workers that go away, or hang: nothing is lost, and all of it heals by itself."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import process
from strongroom.hsm.api import Token, TokenState
from strongroom.hsm.pin import PinFile
from testbed.hsmkeys import KeyInUse
from testbed.shim import Shim
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]
MakeKey = Callable[..., Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]
PidOf = Callable[[Token], int]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _roundtrip(key: KeyInUse, plaintext: bytes) -> bytes:
    return await key.open(await key.seal(plaintext))


async def _reason(call: Awaitable[Any]) -> Reason:
    with pytest.raises(StrongroomError) as caught:
        await call
    return caught.value.reason


async def test_a_killed_worker_costs_its_callers_a_retry_and_nothing_more(
    hsm: Token, key: KeyInUse, pid_of: PidOf, wait_until: WaitUntil
) -> None:
    retries = 0
    done = 0

    async def caller(number: int) -> None:
        nonlocal retries, done
        for turn in range(150):
            plaintext = b"%d/%d" % (number, turn)
            while True:
                try:
                    assert await _roundtrip(key, plaintext) == plaintext
                    break
                except StrongroomError as error:
                    if error.reason is not Reason.HSM_UNAVAILABLE:
                        raise
                    retries += 1
                    await asyncio.sleep(0.01)
            done += 1

    callers = asyncio.gather(*(caller(number) for number in range(8)))
    for kill in range(1, 4):
        await wait_until(lambda kill=kill: done >= 300 * kill and hsm.available)  # type: ignore[misc]
        os.kill(pid_of(hsm), signal.SIGKILL)
        await wait_until(lambda kill=kill: hsm.statistics.worker_losses == kill)  # type: ignore[misc]
    await callers
    assert done == 1200
    assert retries > 0
    statistics = hsm.statistics
    assert (statistics.worker_starts, statistics.worker_losses) == (4, 3)
    assert (statistics.in_flight, sum(statistics.waiting.values())) == (0, 0)


async def test_calls_in_flight_fail_at_once_when_the_worker_dies(
    hsm: Token, key: KeyInUse, pid_of: PidOf, wait_until: WaitUntil
) -> None:
    os.kill(pid_of(hsm), signal.SIGSTOP)
    calls = [asyncio.ensure_future(_roundtrip(key, b"value")) for _ in range(4)]
    await wait_until(lambda: hsm.statistics.in_flight >= 2)
    started = time.monotonic()
    os.kill(pid_of(hsm), signal.SIGKILL)
    for call in calls:
        assert await _reason(call) is Reason.HSM_UNAVAILABLE
    assert time.monotonic() - started < 5  # far from the 30 s of the watchdog
    await wait_until(lambda: hsm.available)
    assert await _roundtrip(key, b"value") == b"value"


async def test_a_hung_worker_is_killed_and_replaced(
    open_token: OpenToken, make_key: MakeKey, pid_of: PidOf, wait_until: WaitUntil
) -> None:
    token = await open_token(operationTimeoutSeconds=0.5)
    key = await make_key(token)
    hung = pid_of(token)
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(StrongroomError, match=r"did not answer within 0\.5 seconds") as caught:
        await _roundtrip(key, b"value")
    assert caught.value.reason is Reason.HSM_UNAVAILABLE
    await wait_until(lambda: token.available)
    assert pid_of(token) != hung
    assert not _exists(hung)
    assert await _roundtrip(key, b"value") == b"value"


async def test_what_takes_many_calls_may_take_longer_than_one_operation(
    shim: Shim, open_token: OpenToken, make_key: MakeKey
) -> None:
    token = await open_token(operationTimeoutSeconds=0.3)
    key = await make_key(token)
    shim.set("C_FindObjectsInit", delays=0.5)
    assert [material.ref for material in await token.find_all()] == [key.ref]
    assert [material.ref for material in await token.find(key.ref.key_id)] == [key.ref]
    assert token.statistics.worker_losses == 0


async def test_waiting_for_the_creation_of_other_keys_is_no_hang(
    shim: Shim, open_token: OpenToken, make_key: MakeKey
) -> None:
    token = await open_token(operationTimeoutSeconds=0.3, sessions=4)
    shim.set("C_GenerateKey", delays=0.4)  # three in each creation: the key, and two for its verification
    keys = await asyncio.gather(*(make_key(token) for _ in range(3)))
    assert len(await token.find_all()) == len(keys)
    assert token.statistics.worker_losses == 0


async def test_a_cancelled_call_to_a_hung_worker_is_still_watched(
    open_token: OpenToken, make_key: MakeKey, pid_of: PidOf, wait_until: WaitUntil
) -> None:
    token = await open_token(operationTimeoutSeconds=0.5, sessions=1)
    key = await make_key(token)
    os.kill(pid_of(token), signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await _roundtrip(key, b"value")
    assert token.statistics.in_flight == 1
    await wait_until(lambda: token.statistics.worker_losses == 1 and token.available)
    assert await _roundtrip(key, b"value") == b"value"


async def test_a_token_that_vanishes_is_away_and_not_empty_and_heals(
    open_token: OpenToken, make_key: MakeKey, new_token: SoftHsmToken, wait_until: WaitUntil
) -> None:
    changes: list[TokenState] = []
    token = await open_token(on_change=lambda token: changes.append(token.state))
    key = await make_key(token)
    away = new_token.tokens.with_name("away")
    for ask in (
        lambda: _roundtrip(key, b"value"),
        token.find_all,
        lambda: token.find(key.ref.key_id),
        lambda: token.verify(key.ref),
        token.info,
        lambda: make_key(token),
    ):
        new_token.tokens.rename(away)
        new_token.tokens.mkdir(mode=0o700)
        assert await _reason(ask()) is Reason.HSM_UNAVAILABLE
        await wait_until(lambda: not token.available)
        assert await _reason(ask()) is Reason.HSM_UNAVAILABLE
        new_token.tokens.rmdir()
        away.rename(new_token.tokens)
        await wait_until(lambda: token.available)
        assert await _roundtrip(key, b"value") == b"value"
    assert changes == [TokenState.AVAILABLE] + [TokenState.UNAVAILABLE, TokenState.AVAILABLE] * 6
    assert [material.ref for material in await token.find_all()] == [key.ref]


async def test_a_token_that_is_absent_at_the_start_is_waited_for(
    open_token: OpenToken, new_token: SoftHsmToken, wait_until: WaitUntil
) -> None:
    away = new_token.tokens.with_name("away")
    new_token.tokens.rename(away)
    token = await open_token()
    assert token.state is TokenState.UNAVAILABLE
    assert await _reason(token.info()) is Reason.HSM_UNAVAILABLE
    away.rename(new_token.tokens)
    await wait_until(lambda: token.available)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"module": "/nowhere/libpkcs11.so"}, "/nowhere/libpkcs11.so cannot be loaded"),
        ({"module": "/etc/passwd"}, "/etc/passwd cannot be loaded"),
        ({"moduleSha256": "0" * 64}, "is not the library that moduleSha256 names"),
        ({"pinFile": "/nowhere/pin"}, "PIN file /nowhere/pin cannot be opened"),
    ],
)
async def test_a_misconfigured_token_says_what_is_wrong(
    open_token: OpenToken, changed: dict[str, Any], what: str
) -> None:
    token = await open_token(**changed)
    assert token.state is TokenState.MISCONFIGURED
    assert token.problem is not None
    assert what in token.problem.message
    assert token.problem.hint
    assert await _reason(token.info()) is Reason.HSM_UNAVAILABLE
    assert token.statistics.logins == 0 or "PIN" not in what


async def test_an_open_pin_file_is_not_used_until_it_is_closed(
    open_token: OpenToken, new_token: SoftHsmToken, wait_until: WaitUntil
) -> None:
    new_token.pin_file.chmod(0o644)
    token = await open_token()
    assert token.state is TokenState.MISCONFIGURED
    assert f"chmod o= {new_token.pin_file}" in str(token.problem)
    assert token.statistics.logins == 0
    new_token.pin_file.chmod(0o440)
    await wait_until(lambda: token.available)


async def test_two_tokens_of_one_label_are_not_guessed_between(
    open_token: OpenToken, new_token: SoftHsmToken, tmp_path: Path
) -> None:
    other = SoftHsmToken(tmp_path / "other", label=new_token.label)
    for directory in other.tokens.iterdir():
        directory.rename(new_token.tokens / directory.name)
    token = await open_token()
    assert token.state is TokenState.MISCONFIGURED
    assert "several tokens are labelled" in str(token.problem)


async def test_the_right_digest_is_accepted(open_token: OpenToken, new_token: SoftHsmToken) -> None:
    digest = hashlib.sha256(new_token.module.read_bytes()).hexdigest()
    assert (await open_token(moduleSha256=digest)).available


async def test_a_fault_of_our_own_does_not_end_the_supervision(
    open_token: OpenToken,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = 3
    read = PinFile.read

    def faulty(pin_file: PinFile) -> bytearray:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("text that may quote anything")
        return read(pin_file)

    monkeypatch.setattr(PinFile, "read", faulty)
    token = await open_token()
    assert await _reason(token.info()) is Reason.HSM_UNAVAILABLE
    await wait_until(lambda: token.available)
    assert "RuntimeError in faulty (test_hsm_outage.py:" in caplog.text
    assert "text that may quote anything" not in f"{caplog.text} {token.problem}"


_SWAP_AFTER_HASHING = """
import hashlib, os, sys
from strongroom import profiles
from strongroom.hsm import wire
from strongroom.hsm.module import find_token
module, label = sys.argv[1:]
digest_of = hashlib.file_digest
def swapped(file, name):
    digest = digest_of(file, name)
    with open(module + ".other", "wb") as other:
        other.write(b"another library")
    os.replace(module + ".other", module)
    return digest
with open(module, "rb") as file:
    sha256 = digest_of(file, "sha256").hexdigest()
hashlib.file_digest = swapped
find_token(wire.Start(module, sha256, "", label, profiles.load("softhsm")))
print("found", flush=True)
os._exit(0)
"""


def test_the_library_that_was_hashed_is_the_one_that_is_loaded(new_token: SoftHsmToken, tmp_path: Path) -> None:
    module = tmp_path / "libhsm.so"
    module.write_bytes(new_token.module.read_bytes())
    command = [sys.executable, "-c", _SWAP_AFTER_HASHING, str(module), new_token.label]
    done = subprocess.run(command, env=new_token.environment, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "found"
    assert module.read_bytes() == b"another library"


async def test_after_closing_nothing_runs_and_everything_is_refused(hsm: Token, pid_of: PidOf) -> None:
    pid = pid_of(hsm)
    await hsm.close()
    assert not _exists(pid)
    assert await _reason(hsm.info()) is Reason.HSM_UNAVAILABLE


@pytest.mark.parametrize(("fault", "finalized"), [({"delays": 0.5}, 1), ({"hangs": True}, 0)], ids=["slow", "hung"])
async def test_the_library_is_finalized_only_when_nobody_is_inside_it(
    monkeypatch: pytest.MonkeyPatch,
    shim: Shim,
    hsm: Token,
    key: KeyInUse,
    wait_until: WaitUntil,
    fault: dict[str, Any],
    finalized: int,
) -> None:
    monkeypatch.setattr(process, "_EXIT_SECONDS", 8.0)  # the worker itself waits for 5
    good = await key.seal(b"value")
    before = shim.calls("C_Decrypt")
    shim.set("C_Decrypt", **fault)
    opening = asyncio.create_task(key.open(good))
    await wait_until(lambda: shim.calls("C_Decrypt") > before)
    await hsm.close()
    assert shim.calls("C_Finalize") == finalized
    with contextlib.suppress(StrongroomError):
        await opening
