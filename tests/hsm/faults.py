# SPDX-License-Identifier: Apache-2.0
"""Faults of a PKCS#11 library, from the side of the test."""

import json
from pathlib import Path
from typing import Any


class Faults:
    """What the library of every worker does wrong from now on: the words are those of faultyworker.py."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def set(self, function: str, **fault: Any) -> None:
        partial = self._directory / "partial"
        partial.write_text(json.dumps(fault))
        partial.rename(self._file(function))

    def clear(self, function: str) -> None:
        self._file(function).unlink()

    def calls(self, function: str) -> int:
        """How often it was called, by all workers."""
        counter = self._directory / f"{function}.calls"
        return counter.stat().st_size if counter.exists() else 0

    def _file(self, function: str) -> Path:
        return self._directory / f"{function}.fault"
