# SPDX-License-Identifier: Apache-2.0
"""Tokens that live in files: these must not be open to others.

    SoftHSM   directories.tokendir of the file that SOFTHSM2_CONF names, with everything in it
    kryoptic  dbargs of each slot in the file that KRYOPTIC_CONF names, or that file if it is no TOML

What others may read, write or enter is open if they may do so with the directory it is in, too. The group may: so
Kubernetes hands a volume to `fsGroup`. Where the library would not find its files, there is nothing to check: it says
so itself.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

_SOFTHSM_DIRECTORY = re.compile(r"^\s*directories\.tokendir\s*=\s*(.*?)\s*$", re.MULTILINE)


class _KryopticSlot(msgspec.Struct):
    dbtype: str = ""
    dbargs: str = ""


class _KryopticConfiguration(msgspec.Struct):
    slots: list[_KryopticSlot] = []


class OpenFilesError(Exception):
    """Files of a token are open to others. `message` names the first, `hint` says what to do."""

    def __init__(self, path: Path, mode: int) -> None:
        kind = "directory" if stat.S_ISDIR(mode) else "file"
        self.message = f"the token's {kind} {path} is open to everyone (mode {stat.S_IMODE(mode):04o})"
        self.hint = f"Run 'chmod -R o= {path}'"
        super().__init__(self.message)


def refuse_open_files(environment: Mapping[str, str]) -> None:
    """Raises OpenFilesError for the first that is open. Blocks."""
    for path in _files(environment):
        try:
            mode, directory_mode = path.stat().st_mode, path.parent.stat().st_mode
        except OSError:
            continue  # removed meanwhile, or never there
        if mode & stat.S_IRWXO and directory_mode & stat.S_IRWXO:
            raise OpenFilesError(path, mode)


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Every directory before what is in it."""
    for name in _softhsm_directories(environment.get("SOFTHSM2_CONF", "")):
        for directory, _, files in os.walk(name):
            yield Path(directory)
            yield from (Path(directory, file) for file in files)
    yield from _kryoptic_databases(environment.get("KRYOPTIC_CONF", ""))


def _softhsm_directories(configuration: str) -> list[str]:
    text = _read(configuration)
    return _SOFTHSM_DIRECTORY.findall(text)


def _kryoptic_databases(configuration: str) -> list[Path]:
    if not configuration:
        return []
    try:
        slots = msgspec.toml.decode(_read(configuration), type=_KryopticConfiguration).slots
    except msgspec.DecodeError:
        return [Path(configuration)]  # the database itself
    return [Path(slot.dbargs) for slot in slots if slot.dbtype == "sqlite" and slot.dbargs]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    except OSError:
        return ""
