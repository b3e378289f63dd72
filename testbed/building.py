# SPDX-License-Identifier: Apache-2.0
"""Programs that are built once and kept outside the tree: `${XDG_CACHE_HOME:-~/.cache}/strongroom/`.

Deleting that directory is always safe.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from testbed import TestBedError

_HEARTBEAT_SECONDS = 20.0


def cache_directory() -> Path:
    """Where binaries are kept between runs; created if it does not exist."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "strongroom"
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(what: str, argv: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
    """Run a command with its output in a file, showing that it still runs and how long. Raises TestBedError."""
    started = time.monotonic()
    say(f"{what} ...")
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(argv, env=environment, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.returncode is None:
                try:
                    process.wait(_HEARTBEAT_SECONDS)
                except subprocess.TimeoutExpired:
                    say(f"{what} ... {_elapsed(started)}")
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace")
            raise TestBedError(f"{what} failed: {' '.join(argv)} ended with {process.returncode}\n{text[-4000:]}")
    say(f"{what}: done in {_elapsed(started)}")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time is inside, on this machine."""
    with (cache_directory() / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another process is building it; waiting for that")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _elapsed(started: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def say(text: str) -> None:
    print(f"testbed: {text}", file=sys.stderr, flush=True)
