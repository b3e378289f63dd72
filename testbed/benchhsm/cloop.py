# SPDX-License-Identifier: Apache-2.0
"""The C side: loop.c, compiled once, driven by one line a run."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from testbed import TestBedError
from testbed.building import cache_directory
from testbed.pkcs11token import Pkcs11Token

_SOURCE = Path(__file__).with_name("loop.c")


class CLoop:
    """A process of its own, logged in to the token, at rest between runs."""

    def __init__(self, token: Pkcs11Token) -> None:
        self._process = subprocess.Popen(
            [_compiled(), token.module, token.label, token.pin_file],
            env=token.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "CLoop":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def per_second(self, operation: str, key_id: bytes, seconds: float, *more: str) -> float:
        """Operations a second. Raises TestBedError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join((operation, key_id.hex(), str(seconds), *more)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise TestBedError(f"the C loop ended at {operation!r}: see its standard error")
        return float(answer)


def _compiled() -> Path:
    program = cache_directory() / f"hsm-loop-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}"
    if program.exists():
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise TestBedError("a C compiler is needed, and there is no 'cc'. Run 'make dev'")
    partial = program.with_suffix(".partial")
    subprocess.run(
        [compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-o", partial, _SOURCE, "-ldl"], check=True
    )
    partial.rename(program)
    return program
