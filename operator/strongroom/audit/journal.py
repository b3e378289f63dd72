# SPDX-License-Identifier: Apache-2.0
"""Writes audit records: one JSON line each, chained by hash, to stdout and, if configured, a file.

`hash` is SHA-256 over the record's canonical JSON (sorted keys, no spaces) without `hash` itself; it covers `prevHash`,
so changing, removing or reordering lines of a chain shows. A chain lives as long as the process.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from strongroom.audit.record import Entry, Outcome, uuid7
from strongroom.errors import Reason, StrongroomError

_log = logging.getLogger(__name__)

FIRST_HASH = "0" * 64
"""`prevHash` of a chain's first record."""


class Journal:
    """The audit log of one process. Writing is synchronous: when `success` returns, the line has left the process.

    `strict`: a record that cannot be written raises StrongroomError (AuditUnavailable), and whoever called releases
    nothing. Otherwise the failure is logged and counted. Belongs to one event loop; never concurrent.
    """

    def __init__(
        self, *, strict: bool, file: str = "", stdout: BinaryIO | None = None, on_record: Callable[[str], None]
    ) -> None:
        self._strict = strict
        self._outputs: list[BinaryIO] = [stdout or sys.stdout.buffer]
        if file:
            descriptor = os.open(Path(file), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._outputs.append(os.fdopen(descriptor, "ab"))
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
        except StrongroomError:
            _log.exception("the audit record of a refused operation could not be written")

    def _write(self, record: dict[str, Any]) -> None:
        record |= {"chain": self._chain, "sequence": self._sequence, "prevHash": self._previous}
        canonical = _canonical(record)
        digest = hashlib.sha256(canonical).hexdigest()
        line = canonical[:-1] + b',"hash":"' + digest.encode() + b'"}\n'
        failure = ""
        for output in self._outputs:
            try:
                output.write(line)
                output.flush()
            except (OSError, ValueError) as error:
                failure = type(error).__name__
        # A line that failed keeps its place: what a full disk left in the buffer comes out once there is room.
        self._sequence += 1
        self._previous = digest
        self._on_record("failed" if failure else record["outcome"])
        if failure and self._strict:
            raise StrongroomError(
                Reason.AUDIT_UNAVAILABLE,
                f"the audit record could not be written ({failure})",
                hint="Check the audit file's volume and the operator's standard output",
            )
        if failure:
            _log.error("an audit record could not be written: %s", failure)


def record_hash(record: dict[str, Any]) -> str:
    """The hash of a record that has its place in the chain; a `hash` field in it is left out."""
    return hashlib.sha256(_canonical({key: value for key, value in record.items() if key != "hash"})).hexdigest()


def _canonical(record: dict[str, Any]) -> bytes:
    return msgspec.json.encode(record, order="sorted")
