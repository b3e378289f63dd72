# SPDX-License-Identifier: Apache-2.0
"""Exit codes: part of the interface, stable."""

from enum import IntEnum, unique

from strongroom.errors import Reason


@unique
class Exit(IntEnum):
    """What the shell sees."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FORBIDDEN = 5
    """Not allowed, or not logged in: a grant or new credentials help."""
    UNAVAILABLE = 6
    """The API or the HSM is away or busy: trying again makes sense."""
    INTERRUPTED = 130
    """SIGINT, as shells report it (128 + 2)."""
    BROKEN_PIPE = 141
    """The reader of stdout went away (128 + SIGPIPE); silent."""


HELP = """\b
Exit codes:
  0    done
  1    error: the input, the key or the server says no
  2    usage
  5    forbidden or not logged in
  6    unavailable: trying again makes sense
  130  interrupted"""
"""Shown below every help text."""


def exit_of(reason: Reason) -> Exit:
    """The exit code of a failure with this reason."""
    if reason is Reason.ACCESS_DENIED:
        return Exit.FORBIDDEN
    if reason.http_status in (429, 503):
        return Exit.UNAVAILABLE
    return Exit.ERROR
