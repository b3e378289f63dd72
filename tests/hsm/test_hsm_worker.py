# SPDX-License-Identifier: Apache-2.0
"""The worker process: what it may see and leave behind, and a worker that is not ours at all."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import process, supervisor
from strongroom.hsm.api import OpenItem, SealItem, Share, Token, TokenState
from strongroom.model.algorithms import Algorithm
from strongroom.model.plaintext import Plaintext
from testbed.hsmkeys import new_ref
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]
PidOf = Callable[[Token], int]


def _proc(token: Token, pid_of: PidOf, name: str) -> bytes:
    return Path(f"/proc/{pid_of(token)}/{name}").read_bytes()


async def test_it_leaves_no_core_dump(hsm: Token, pid_of: PidOf) -> None:
    (core,) = [line for line in _proc(hsm, pid_of, "limits").splitlines() if line.startswith(b"Max core file size")]
    assert core.split()[4:6] == [b"0", b"0"]


_HARDENED = """
import ctypes, os, resource
from strongroom.hsm.hardening import harden_process
harden_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))  # PR_GET_DUMPABLE
"""


def test_a_hardened_process_is_not_dumpable_and_leaves_no_core() -> None:
    done = subprocess.run([sys.executable, "-c", _HARDENED], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0"]


def test_a_process_whose_parent_is_gone_already_ends() -> None:
    script = "from strongroom.hsm.hardening import die_with_parent; die_with_parent(1 << 30); raise SystemExit(7)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_no_secret_is_on_its_command_line(hsm: Token, pid_of: PidOf, new_token: SoftHsmToken) -> None:
    command = _proc(hsm, pid_of, "cmdline")
    assert b"strongroom.hsm.worker" in command
    assert new_token.pin_file.read_bytes() not in command


_SHOW_ENVIRONMENT = """
import os, pathlib, sys
pathlib.Path(os.environ["REPORT"]).write_text("\\n".join(sorted(os.environ)))
"""


async def test_its_environment_is_the_configured_one_and_nothing_of_the_operators(
    open_token: OpenToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "PYTHONPATH", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "marker")
    monkeypatch.setattr(process, "WORKER", ("-c", _SHOW_ENVIRONMENT))
    report = tmp_path / "environment"
    token = await open_token(environment={"REPORT": str(report), "SOFTHSM2_CONF": "/x"})
    assert token.state is TokenState.UNAVAILABLE
    assert set(report.read_text().split()) - {"LC_CTYPE"} == {"LANG", "PATH", "REPORT", "SOFTHSM2_CONF"}


_PARENT = """
import asyncio, sys
import msgspec
from strongroom.config import HsmConfig
from strongroom.hsm.api import Token

async def main():
    token = Token(msgspec.json.decode(sys.argv[1], type=HsmConfig))
    await token.start()
    print(token._exchange.supervisor.worker.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["idle", "stopped"])
async def test_it_dies_with_its_parent(new_token: SoftHsmToken, wait_until: WaitUntil, stopped: bool) -> None:
    pid = _orphan(new_token, stopped=stopped)
    await wait_until(lambda: not _alive(pid))


def _orphan(token: SoftHsmToken, *, stopped: bool) -> int:
    """Process id of a worker whose operator was killed; if stopped, it cannot notice the end of its socket."""
    config = msgspec.json.encode(token.config()).decode()
    with subprocess.Popen([sys.executable, "-c", _PARENT, config], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            if stopped:
                os.kill(pid, signal.SIGSTOP)
        finally:
            parent.kill()
    return pid


def _alive(pid: int) -> bool:
    """Not gone and not a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


_PRELUDE = """
import socket, sys
from strongroom.hsm import wire
connection = socket.socket(fileno=int(sys.argv[1]))
def read():
    length, request_id = wire.parse_header(bytearray(connection.recv(8, socket.MSG_WAITALL)))
    return request_id, wire.decode_request(bytearray(connection.recv(length, socket.MSG_WAITALL)))
"""
_ANSWER_DONE = "request_id, _ = read(); connection.sendall(wire.encode(request_id, wire.Done()))\n"
_OPEN_SESSIONS = "request_id, _ = read(); connection.sendall(wire.encode(request_id, wire.SessionsOpened({})))\n"
_START_WELL = _ANSWER_DONE * 2 + _OPEN_SESSIONS.format(1) + "request_id, _ = read()\n"


@pytest.mark.parametrize(
    "what_it_does",
    [
        "connection.sendall(b'garbage' * 100); connection.recv(1)",
        "connection.sendall(wire.HEADER.pack(2**32 - 1, 1)); connection.recv(1)",
        "connection.sendall(wire.HEADER.pack(wire.MAX_FRAME_BYTES + 1, 1)); connection.recv(1)",
        "connection.sendall(wire.HEADER.pack(0, 1)); connection.recv(1)",
        "connection.sendall(wire.encode(999, wire.Done())); connection.recv(1)",
        "request_id, _ = read(); connection.sendall(wire.encode(request_id, wire.FoundKeys([]))); connection.recv(1)",
        "request_id, _ = read(); connection.sendall(wire.encode(request_id, wire.Find(b'')))",
        _ANSWER_DONE + "request_id, _ = read(); connection.sendall(wire.encode(request_id, wire.SessionsOpened(1)))",
        _ANSWER_DONE * 3,
        _ANSWER_DONE * 2 + _OPEN_SESSIONS.format(0) + "connection.recv(1)",
        _ANSWER_DONE * 2 + _OPEN_SESSIONS.format(2) + "connection.recv(1)",  # one was asked for
        "raise SystemExit(1)",
    ],
)
async def test_a_worker_that_starts_badly_is_as_good_as_dead(
    open_token: OpenToken, monkeypatch: pytest.MonkeyPatch, what_it_does: str
) -> None:
    monkeypatch.setattr(process, "WORKER", ("-I", "-c", _PRELUDE + what_it_does))
    token = await open_token()
    assert token.state is TokenState.UNAVAILABLE
    assert token.problem is not None
    assert token.problem.reason is Reason.HSM_UNAVAILABLE


_OUR_ID = r"b'iiiiii\x49i\xa9iiiiiii\0\0\0\1'"
"""As Python: version 1 of a key, whose id is a random UUID."""


async def test_a_library_that_hangs_while_it_opens_does_not_hold_up_the_operator(
    open_token: OpenToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(process, "WORKER", ("-I", "-c", _PRELUDE + "read(); connection.recv(1)"))
    token = await open_token()
    assert token.state is TokenState.STARTING
    with pytest.raises(StrongroomError) as caught:
        await token.info()
    assert caught.value.reason is Reason.HSM_UNAVAILABLE


@pytest.mark.parametrize(
    "answer",
    [
        "wire.Done()",
        "wire.FoundKeys([wire.FoundKey(b'no id of ours', 'label', 'AES_256', True)])",
        f"wire.FoundKeys([wire.FoundKey({_OUR_ID}, 'label', 'AES_256', True, b'modulus')])",
        f"wire.FoundKeys([wire.FoundKey({_OUR_ID}, 'label', 'RSA_3072', True)])",
        f"wire.FoundKeys([wire.FoundKey({_OUR_ID}, 'label', 'RSA_4096', True, b'\\xff' * 384, b'\\1\\0\\1')])",
        f"wire.FoundKeys([wire.FoundKey({_OUR_ID}, 'label', 'RSA_3072', True, b'\\xff' * 384, b'\\1')])",
        "wire.OpenedValues([bytearray(b'unasked')])",
    ],
)
async def test_an_answer_that_does_not_fit_the_question_ends_the_worker(
    open_token: OpenToken, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, answer: str
) -> None:
    lying = f"connection.sendall(wire.encode(request_id, {answer})); connection.recv(1)"
    monkeypatch.setattr(process, "WORKER", ("-I", "-c", _PRELUDE + _START_WELL + lying))
    token = await open_token()
    assert token.available
    with pytest.raises(StrongroomError, match="sent what it must not"):
        await token.find_all()
    await wait_until(lambda: token.statistics.worker_losses == 1)


@pytest.mark.parametrize(
    ("answer", "call"),
    [
        ("wire.SealedValues([])", "seal"),
        ("wire.SealedValues([wire.SealedValue(b'n' * 11, b'b' * 21)])", "seal"),
        ("wire.SealedValues([wire.SealedValue(b'n' * 12, b'value')])", "seal"),
        ("wire.OpenedValues([])", "open"),
        ("wire.OpenedValues([bytearray(6)])", "open"),
        ("wire.OpenedValues([bytearray(16)])", "open-cbc"),
    ],
)
async def test_values_of_the_wrong_number_or_size_end_the_worker(
    open_token: OpenToken, monkeypatch: pytest.MonkeyPatch, answer: str, call: str
) -> None:
    lying = f"connection.sendall(wire.encode(request_id, {answer})); connection.recv(1)"
    monkeypatch.setattr(process, "WORKER", ("-I", "-c", _PRELUDE + _START_WELL + lying))
    token = await open_token()
    ref, gcm, cbc = new_ref(), Algorithm.AES_256_GCM, Algorithm.AES_256_CBC_HMAC_SHA256
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "seal": lambda: token.seal(ref, gcm, [SealItem(Plaintext(b"value"), b"aad")], share=Share.API),
        "open": lambda: token.open(ref, gcm, [OpenItem(bytes(12), bytes(21), b"aad", "value")], share=Share.API),
        "open-cbc": lambda: token.open(ref, cbc, [OpenItem(bytes(16), bytes(48), b"aad", "value")], share=Share.API),
    }
    with pytest.raises(StrongroomError, match="sent what it must not"):
        await calls[call]()


@pytest.mark.parametrize("sent", [b"", b"garbage" * 100, b"\xff" * 8])
def test_a_worker_ends_when_its_parent_sends_garbage_or_leaves(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = subprocess.Popen(
            [sys.executable, *process.WORKER, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env={},
            stderr=subprocess.PIPE,
        )
        theirs.close()
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        _, errors = worker.communicate(timeout=30)
        assert b"garbage" not in errors
        assert worker.returncode == (1 if len(sent) >= 8 else 0)
