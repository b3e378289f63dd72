# SPDX-License-Identifier: Apache-2.0
"""Child processes that leave nothing behind, and the loopback ports they listen on."""

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed import TestBedError
from testbed.waiting import WaitTimeout, wait_for

_TAIL_LINES = 40

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a server that is stopped for
# a while must find its port free when it comes back.
_PORTS = range(20000, 32000)

# The kernel kills the program when its parent ends; and if the parent ended before that was arranged, the program, now
# a child of somebody else, does not even start.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')

# A parent-death signal comes when the *thread* that forked ends, not when its process does. So one thread, which lives
# as long as this interpreter, starts every child.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="testbed-spawner")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on right now."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise TestBedError("no free port on 127.0.0.1: tried 100")


def alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not count: whoever inherits an orphan may take its time to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class ManagedProcess:
    """A child in a process group of its own, killed by the kernel if this process dies. May be started again.

    Standard error (and standard output, unless `stdout` names a file for it) is appended to `log`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        stdout: Path | None = None,
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = [*_DIE_WITH_PARENT, str(os.getpid()), *map(str, argv)]
        self._stdout = stdout
        self._env = dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        # Whether the group has been killed: once it is gone, its number may belong to somebody else.
        self._swept = False

    @property
    def pid(self) -> int:
        """Process id of the child that was started last."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status of the last child (negative: the signal that ended it); None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the child; returns at once."""
        assert not self.running, f"{self.name} is running already"
        self._process = _spawner.submit(self._spawn).result()
        self._swept = False

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log, (self._stdout or self.log).open("ab") as stdout:
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                process_group=0,
            )

    def check_running(self) -> bool:
        """True; raises TestBedError with the end of the log if the child has ended. For conditions to wait for."""
        if not self.running:
            raise TestBedError(f"{self.name} ended with status {self.returncode}\n{self.tail()}")
        return True

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, then SIGKILL to the whole group after `timeout` seconds; returns the exit status, 0 if none ran."""
        if self._process is None:
            return 0
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the whole group; returns the exit status once the child has been reaped, 0 if none ran."""
        if self._process is None:
            return 0
        if not self._swept:
            self._swept = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The end of the log, under a heading that names the file."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- last lines of {self.log}\n" + "\n".join(text.splitlines()[-lines:])

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Poll `ready` until it is true; an OSError counts as "not yet".

        Raises TestBedError, with the end of the log, when the child ends or `timeout` seconds are over.
        """
        try:
            wait_for(lambda: self.check_running() and ready(), timeout, f"{self.name} to be ready", retry_on=(OSError,))
        except WaitTimeout as error:
            raise TestBedError(f"{error}\n{self.tail()}") from None
