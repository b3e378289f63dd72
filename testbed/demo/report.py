# SPDX-License-Identifier: Apache-2.0
"""What the demonstration prints: one line a step with its verdict, below it what was typed and what came back."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_INDENT = " " * 9
_WIDTH = 76
_LONGEST_LINE = 220


class StepFailed(AssertionError):
    """A step did not show what it should. The message says what was expected and what was seen."""


def expect(condition: object, what: str) -> None:
    """Raise StepFailed with `what` unless the condition is true."""
    if not condition:
        raise StepFailed(what)


class Report:
    """Prints to standard output as steps end; lines of a running step are kept until its verdict is known."""

    def __init__(self, steps: int) -> None:
        self.failed: list[str] = []
        """Titles of the steps that failed."""
        self._steps = steps
        self._number = 0
        self._lines: list[str] = []
        self._started = time.monotonic()
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def chapter(self, title: str) -> None:
        """A heading."""
        print(f"\n{self._paint(title, '1')}", flush=True)

    def run(self, title: str, step: Callable[[], None]) -> bool:
        """Run one step and print its verdict; whether it passed. Only what is no Exception (Ctrl-C) gets through."""
        self._number += 1
        self._lines = []
        head = f"[{self._number:2}/{self._steps}] {title} "
        print(head, end="", flush=True)
        started = time.monotonic()
        failure = ""
        try:
            step()
        except Exception as error:
            self.failed.append(f"{self._number:2} {title}")
            failure = _described(error)
        dots = "." * max(3, _WIDTH - len(head))
        seconds = f"{time.monotonic() - started:5.1f} s"
        verdict = self._paint("FAILED", "1;31") if failure else self._paint("ok", "32")
        print(f"{dots} {verdict} {self._paint(seconds, '2')}")
        for line in self._lines:
            print(f"{_INDENT}{line}".rstrip())
        for line in failure.splitlines():
            print(f"{_INDENT}{self._paint(line, '31')}")
        sys.stdout.flush()
        return not failure

    def command(self, who: str, command: str) -> None:
        """What someone types."""
        first, *rest = command.splitlines()
        self._lines.append(f"{self._paint(who + '$', '36')} {self._paint(first, '1')}")
        self._lines += [" " * (len(who) + 2) + self._paint(line, "1") for line in rest]

    def output(self, text: str, *, whole: bool = False) -> None:
        """What a program answered; long lines are cut unless `whole`."""
        for line in text.rstrip("\n").splitlines():
            cut = len(line) > _LONGEST_LINE and not whole
            self._lines.append(f"{line[:_LONGEST_LINE]}… ({len(line)} characters)" if cut else line)

    def note(self, text: str) -> None:
        """What the demonstration itself says or has checked."""
        self._lines += [self._paint(f"# {line}", "2") for line in text.splitlines()]

    def summary(self) -> None:
        """The verdict on the whole, and how long it took."""
        passed, total = self._number - len(self.failed), self._steps
        self.chapter("Summary")
        print(f"{passed} of {total} steps ok, {time.monotonic() - self._started:.0f} s in all")
        for title in self.failed:
            print(f"  {self._paint('FAILED', '1;31')} {title}")
        if self._number < total:
            print(f"  {self._paint('NOT RUN', '1;31')} {total - self._number} steps that need the one that failed")
        sys.stdout.flush()

    @property
    def passed(self) -> bool:
        """Whether every step ran, and none failed."""
        return not self.failed and self._number == self._steps

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._coloured else text


def _described(error: Exception) -> str:
    if isinstance(error, StepFailed):
        return str(error)
    frame = next(
        (frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if "/demo/" in frame.filename), None
    )
    where = f" ({Path(frame.filename).name} line {frame.lineno})" if frame else ""
    return f"{type(error).__name__}{where}: {error}"
