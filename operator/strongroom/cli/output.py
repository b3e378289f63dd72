# SPDX-License-Identifier: Apache-2.0
"""Where results go: stdout, or files replaced as a whole."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from strongroom.cli.failure import Place, invalid


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


def replace_files(contents: Mapping[Path, str]) -> None:
    """Replace files, mode kept. Every new file is on disk, complete, before the first old one goes; after a failure to
    write, all files are as they were. Raises OSError."""
    prepared: dict[Path, Path] = {}
    try:
        for path, text in contents.items():
            prepared[path] = _beside(path, text)
        for path, temporary in prepared.items():
            os.replace(temporary, path)
    finally:
        for temporary in prepared.values():
            temporary.unlink(missing_ok=True)
    for directory in {path.parent for path in contents}:
        _sync_directory(directory)


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
