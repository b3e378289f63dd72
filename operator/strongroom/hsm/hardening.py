# SPDX-License-Identifier: Apache-2.0
"""What a process that holds plaintexts or PINs does first: no core dumps, no ptrace, no orphans."""

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def harden_process() -> None:
    """No core dumps, and neither ptrace nor /proc/<pid>/mem for others of the same user. To be called before the first
    secret is read; not inherited over exec, so by each program itself. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when the thread that started it ends, and at once if `parent`, its process id, is
    gone already. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
