# SPDX-License-Identifier: Apache-2.0
"""Everything said to a person, on stderr: notes, warnings and errors. Data never passes through here."""

import os
import re
import sys

import click

from strongroom.cli.failure import CommandError
from strongroom.cli.hints import hint_for
from strongroom.cli.printable import printable
from strongroom.errors import StrongroomError

_SHOWN_OF_CIPHERTEXT = 16
_CIPHERTEXT = re.compile(rf"(U1Ix[A-Za-z0-9+/]{{{_SHOWN_OF_CIPHERTEXT - 4}}})[A-Za-z0-9+/=]+")


def note(text: str) -> None:
    """Something worth knowing; nothing to do."""
    _say("note", "cyan", text)


def warn(text: str) -> None:
    """The command goes on, but someone should look."""
    _say("warning", "yellow", text)


def report(error: StrongroomError) -> None:
    """The three lines of a failure: what and where, cause, fix."""
    place = str(error.place) if isinstance(error, CommandError) else ""
    _say("error", "red", f"{error.message} ({place})" if place else error.message)
    _say("cause", "red", error.cause if isinstance(error, CommandError) else error.reason.value)
    _say("fix", "green", error.hint or hint_for(error.reason))


def _say(label: str, colour: str, text: str) -> None:
    shown = click.style(f"{label}:", fg=colour, bold=True) if _coloured() else f"{label}:"
    click.echo(f"{shown} {_presentable(text)}", err=True)


def _coloured() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _presentable(text: str) -> str:
    """One line, ciphertext cut short; names and messages come from files and servers."""
    return _CIPHERTEXT.sub(r"\1…", printable(text))
