# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to a test run, its processes do not outlive it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import REPOSITORY, TestBedError
from testbed.processes import ManagedProcess, alive
from testbed.waiting import wait_for

_ENV = {"PATH": "/usr/bin:/bin"}


def _shell(tmp_path: Path, script: str) -> ManagedProcess:
    return ManagedProcess("script", ["/bin/sh", "-c", script], log=tmp_path / "log", env=_ENV, cwd=tmp_path)


def test_children_die_when_the_run_is_killed(tmp_path: Path) -> None:
    run = f"""
import pathlib, signal, sys
from testbed.processes import ManagedProcess
path = pathlib.Path({str(tmp_path)!r})
child = ManagedProcess("child", ["sleep", "1000"], log=path / "log", env={_ENV!r}, cwd=path)
child.start()
print(child.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(child), 5, "the child to die with its parent")


def test_stop_kills_what_ignores_the_request_and_its_children(tmp_path: Path) -> None:
    process = _shell(tmp_path, "trap '' TERM; sleep 1000 & echo $! > grandchild; while :; do wait; done")
    process.start()
    grandchild = int(wait_for(lambda: (tmp_path / "grandchild").read_text(), 5, "pid", retry_on=(OSError,)))
    assert process.stop(timeout=0.2) == -signal.SIGKILL
    assert not process.running
    wait_for(lambda: not alive(grandchild), 5, "the grandchild to be killed too")


def test_stop_is_gentle_first_and_may_be_repeated(tmp_path: Path) -> None:
    process = _shell(tmp_path, "trap 'exit 7' TERM; touch up; while :; do sleep 0.05; done")
    assert process.stop() == 0
    process.start()
    wait_for((tmp_path / "up").exists, 5, "the script to run")
    assert process.stop() == 7
    assert process.stop() == 7
    assert process.returncode == 7


def test_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    process = _shell(tmp_path, "seq 1 100; echo 'the port is taken' >&2; exit 3")
    process.start()
    with pytest.raises(TestBedError, match=r"script ended with status 3\n(.*\n)+the port is taken") as caught:
        process.wait_ready(lambda: False, 10)
    assert str(tmp_path / "log") in str(caught.value)
    assert "\n1\n" not in str(caught.value)


def test_start_that_takes_too_long_shows_the_end_of_the_log(tmp_path: Path) -> None:
    process = _shell(tmp_path, "echo 'still waiting for etcd'; exec sleep 1000")
    process.start()
    wait_for(process.log.exists, 5, "the log")
    wait_for(process.log.read_text, 5, "a line in the log")
    with pytest.raises(TestBedError, match=r"waited .* for script to be ready(.*\n)+still waiting for etcd"):
        process.wait_ready(lambda: False, 0.1)
    pid = process.pid
    process.kill()
    assert not alive(pid)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
