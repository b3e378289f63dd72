# SPDX-License-Identifier: Apache-2.0
"""`-f FILE|-|DIR` → texts."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from strongroom.cli import terminal
from strongroom.cli.failure import Place, invalid

STDIN = "-"
_SUFFIXES = {".yaml", ".yml", ".json"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or stdin, read whole. `text` keeps its line ends; a byte order mark is gone."""

    path: Path | None
    """None for stdin."""
    raw: bytes
    """As read."""
    text: str

    @property
    def name(self) -> str:
        """As errors name it."""
        return str(self.path) if self.path else "stdin"


def read(filenames: Sequence[str]) -> list[Source]:
    """Read everything named; a directory gives its *.yaml, *.yml and *.json, recursively and sorted. A file named twice
    is read once. Raises CommandError, OSError, click.UsageError."""
    if list(filenames).count(STDIN) > 1:
        raise click.UsageError("stdin ('-') can be read only once")
    sources: dict[str, Source] = {}
    for filename in filenames or (STDIN,):
        if filename == STDIN:
            sources[STDIN] = _source(None, read_stdin())
            continue
        for path in _files(Path(filename)):
            sources.setdefault(str(path.resolve()), _source(path, path.read_bytes()))
    return list(sources.values())


def read_stdin() -> bytes:
    """All of stdin; says so if a person seems to wait for something else."""
    if sys.stdin.isatty():
        terminal.note("reading from the terminal; end with Ctrl-D")
    return sys.stdin.buffer.read()


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise invalid(f"{path} holds no *.yaml, *.yml or *.json", hint="Name a file, or another directory with -f")
    yield from found


def _source(path: Path | None, raw: bytes) -> Source:
    try:
        return Source(path, raw, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise invalid(
            f"the input is not UTF-8 (byte {error.start})",
            hint="Save it as UTF-8",
            place=Place(file=str(path) if path else "stdin"),
        ) from None
