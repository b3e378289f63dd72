# SPDX-License-Identifier: Apache-2.0
"""Where results go: stdout, or files replaced as a whole."""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strongroom.cli.failure import CommandError, Place, invalid


def write(data: str | bytes) -> None:
    """To stdout, as UTF-8 whatever the locale says."""
    sys.stdout.buffer.write(data.encode() if isinstance(data, str) else data)
    sys.stdout.buffer.flush()


def check_replaceable(path: Path) -> None:
    """A symlink is not followed: what it points to may belong to someone else. Raises CommandError."""
    if path.is_symlink() or not path.is_file():
        raise invalid(
            "only a regular file is replaced in place", hint="Name the file itself", place=Place(file=str(path))
        )


@dataclass(frozen=True, slots=True)
class Replacement:
    """A file's new content, and the old one it was made from."""

    path: Path
    old: bytes
    new: str


def replace_files(replacements: Sequence[Replacement]) -> None:
    """Replace files, mode kept, each at once: nobody ever sees half of one.

    Until every new file is on disk, complete, and every old one is still what it was made from, none is replaced. Then
    they are, one after the other; should that fail midway, the error says how many are: those stay. What another
    program writes in the very moment between look and replacement is lost. Raises OSError, CommandError.
    """
    prepared: dict[Path, Path] = {}
    try:
        for replacement in replacements:
            prepared[replacement.path] = _beside(replacement.path, replacement.new)
        for replacement in replacements:
            _check_unchanged(replacement)
        for done, (path, temporary) in enumerate(prepared.items()):
            try:
                os.replace(temporary, path)
            except OSError as error:
                raise _stopped_midway(error, path, done, len(prepared)) from None
    finally:
        for temporary in prepared.values():
            temporary.unlink(missing_ok=True)
    for directory in {path.parent for path in prepared}:
        _sync_directory(directory)


def _check_unchanged(replacement: Replacement) -> None:
    if replacement.path.read_bytes() != replacement.old:
        raise invalid(
            "the file was changed meanwhile; no file is replaced",
            hint="Run the command again",
            place=Place(file=str(replacement.path)),
        )


def _stopped_midway(error: OSError, path: Path, done: int, total: int) -> CommandError:
    return invalid(
        f"{error.strerror}: {done} of {total} files are replaced, this one and those after it are as they were",
        hint="Correct that and run the command again: it goes on with the rest",
        place=Place(file=str(path)),
    )


def _beside(path: Path, text: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, path.stat().st_mode & 0o7777)
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
