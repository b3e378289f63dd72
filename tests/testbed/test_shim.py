# SPDX-License-Identifier: Apache-2.0
"""The PKCS#11 shim: what is asked of it, seen from a process of another binding that has loaded it."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import TestBedError, shim
from testbed.shim import Habits, Shim
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

_ASK = """
import sys, pkcs11
session = pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2]).open(user_pin=sys.argv[3])
for _ in sys.stdin:
    try:
        session.generate_random(64)
        answer = "ok"
    except pkcs11.PKCS11Error as error:
        answer = type(error).__name__
    print(answer, flush=True)
"""


class Asker:
    """A process that calls C_GenerateRandom when asked."""

    def __init__(self, token: SoftHsmToken, shim: Shim) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ASK, str(shim.module), token.label, token.pin_file.read_text()],
            env={**token.environment, **shim.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def receive(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self) -> str:
        self.send()
        return self.receive()


@pytest.fixture
def played(new_token: SoftHsmToken, tmp_path: Path) -> Shim:
    directory = tmp_path / "shim"
    directory.mkdir()
    return Shim(directory, new_token.module)


@pytest.fixture
def asker(new_token: SoftHsmToken, played: Shim) -> Iterator[Asker]:
    asker = Asker(new_token, played)
    assert asker.ask() == "ok"
    yield asker
    played.clear()
    asker.process.kill()
    asker.process.communicate()


def test_it_is_no_different_from_the_module_behind_and_counts(played: Shim, asker: Asker) -> None:
    calls = played.calls("C_GenerateRandom")
    assert [asker.ask() for _ in range(3)] == ["ok"] * 3
    assert played.calls("C_GenerateRandom") == calls + 3
    assert played.calls("C_Login") == 1


def test_a_code_comes_at_the_calls_it_is_asked_for(played: Shim, asker: Asker) -> None:
    played.set("C_GenerateRandom", returns=0x30, first=2, times=2)
    assert [asker.ask() for _ in range(4)] == ["ok", "DeviceError", "DeviceError", "ok"]
    played.set("C_GenerateRandom", returns=0x31)
    assert [asker.ask() for _ in range(2)] == ["DeviceMemory"] * 2
    played.clear("C_GenerateRandom")
    assert asker.ask() == "ok"


def test_the_calls_that_were_counted_are_those_of_all_processes(
    played: Shim, asker: Asker, new_token: SoftHsmToken
) -> None:
    played.set("C_GenerateRandom", returns=0x30, times=1)
    assert asker.ask() == "DeviceError"
    other = Asker(new_token, played)
    assert other.ask() == "ok"
    other.process.communicate("")


def test_every_function_can_be_slow(played: Shim, asker: Asker) -> None:
    played.set("*", delays=0.2)
    started = time.monotonic()
    assert asker.ask() == "ok"
    assert time.monotonic() - started >= 0.2


def test_a_call_hangs_until_it_is_told_otherwise(played: Shim, asker: Asker) -> None:
    played.set("C_GenerateRandom", hangs=True)
    asker.send()
    while played.calls("C_GenerateRandom") < 2:
        time.sleep(0.001)
    played.behave(Habits(max_sessions=3))  # another change does not end it
    assert asker.process.poll() is None
    played.clear("C_GenerateRandom")
    assert asker.receive() == "ok"


@pytest.mark.parametrize(("crashes", "status"), [(True, -signal.SIGSEGV), (False, 1)])
def test_a_call_ends_the_process(played: Shim, asker: Asker, crashes: bool, status: int) -> None:
    played.set("C_GenerateRandom", crashes=crashes, exits=not crashes)
    assert asker.ask() == ""
    assert asker.process.wait(10) == status


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(TestBedError, match="needs a C compiler"):
        shim.compiled()


def test_without_a_module_behind_it_says_so(played: Shim, new_token: SoftHsmToken) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import pkcs11, sys; pkcs11.lib(sys.argv[1])", str(played.module)],
        env={**played.environment, "SHIM_MODULE": "/nowhere.so"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "SHIM_MODULE is no PKCS#11 module" in done.stderr
