# SPDX-License-Identifier: Apache-2.0
"""Writes audit records: one JSON line each, chained by hash, to stdout and, if configured, a file.

`hash` is SHA-256 over the record's canonical JSON (sorted keys, no spaces) without `hash` itself; it covers `prevHash`,
so changing, removing or reordering lines of a chain shows. A chain lives as long as the process.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from io import RawIOBase
from typing import Any, Final

import msgspec

from strongroom.audit.record import Entry, Outcome, uuid7
from strongroom.config import ConfigurationError
from strongroom.errors import Reason, StrongroomError

_log = logging.getLogger(__name__)

_STDOUT: Final = 1
FIRST_HASH = "0" * 64
"""`prevHash` of a chain's first record."""


class Journal:
    """The audit log of one process. Writing is synchronous: when `success` returns, the line has left the process.

    `strict`: a record that cannot be written raises StrongroomError (AuditUnavailable), and whoever called releases
    nothing. Otherwise the failure is logged and counted. Belongs to one event loop; never concurrent.
    """

    def __init__(
        self, *, strict: bool, file: str = "", stdout: RawIOBase | None = None, on_record: Callable[[str], None]
    ) -> None:
        self._strict = strict
        # Unbuffered: a line that could not be written must not come out later, when its operation was refused.
        self._outputs = [_Output(stdout or os.fdopen(_STDOUT, "wb", buffering=0, closefd=False))]
        if file:
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ConfigurationError(f"{file}: cannot be opened: {error.strerror} - at `$.audit.file`") from None
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            self._outputs.append(_Output(os.fdopen(descriptor, "ab", buffering=0), torn=torn))
        self._on_record = on_record
        self._chain = str(uuid7())
        self._sequence = 0
        self._previous = FIRST_HASH

    def success(self, entry: Entry) -> None:
        """Record that the operation did what it should. Raises AuditUnavailable when strict: then release nothing."""
        self._write(entry.as_record(Outcome.SUCCESS, None, ""))

    def refusal(self, entry: Entry, error: StrongroomError) -> None:
        """Record a denied or failed operation. Never raises: the refusal stands whether or not it could be recorded."""
        outcome = Outcome.DENIED if error.reason is Reason.ACCESS_DENIED else Outcome.FAILURE
        try:
            self._write(entry.as_record(outcome, error.reason, error.ckr))
        except StrongroomError as unwritten:
            _log.error("a refused operation went unrecorded: %s", unwritten)

    def _write(self, record: dict[str, Any]) -> None:
        record |= {"chain": self._chain, "sequence": self._sequence, "prevHash": self._previous}
        canonical = _canonical(record)
        digest = hashlib.sha256(canonical).hexdigest()
        line = canonical[:-1] + b',"hash":"' + digest.encode() + b'"}\n'
        failures = [failure for output in self._outputs if (failure := output.write(line))]
        if len(failures) < len(self._outputs):  # a line that is out somewhere has its place in the chain
            self._sequence += 1
            self._previous = digest
        failure = ", ".join(failures)
        self._on_record("failed" if failure else record["outcome"])
        if failure and self._strict:
            raise StrongroomError(
                Reason.AUDIT_UNAVAILABLE,
                f"the audit record could not be written ({failure})",
                hint="Check the audit file's volume and the operator's standard output",
            )
        if failure:
            _log.error("an audit record could not be written: %s", failure)


class _Output:
    """One place lines go to. `torn`: it ends in half a line, cut off by a crash or a full disk."""

    def __init__(self, stream: RawIOBase, *, torn: bool = False) -> None:
        self._stream = stream
        self._torn = torn

    def write(self, line: bytes) -> str:
        """Write the whole line; the kind of failure if that is not possible, empty if it is."""
        # After half a line this one still starts a line, and the half is no record, though all but its end be there.
        rest = memoryview(b"#\n" + line if self._torn else line)
        written = 0
        try:
            while written < len(rest):
                written += self._stream.write(rest[written:]) or 0
        except (OSError, ValueError) as error:
            self._torn = self._torn or written > 0
            return type(error).__name__
        self._torn = False
        return ""


def record_hash(record: dict[str, Any]) -> str:
    """The hash of a record that has its place in the chain; a `hash` field in it is left out."""
    return hashlib.sha256(_canonical({key: value for key, value in record.items() if key != "hash"})).hexdigest()


def _canonical(record: dict[str, Any]) -> bytes:
    return msgspec.json.encode(record, order="sorted")
