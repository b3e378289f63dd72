# SPDX-License-Identifier: Apache-2.0
"""Waiting for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_LONGEST_REPR = 600


class WaitTimeout(AssertionError):
    """The condition did not come true. The message says what was awaited, how long, and the last value seen."""


def wait_for(
    condition: Callable[[], _T],
    timeout: float,
    what: str,
    *,
    interval: float = 0.1,
    retry_on: tuple[type[Exception], ...] = (),
) -> _T:
    """Poll `condition` until it returns something true, and return that.

    `timeout` and `interval` are seconds; the condition is evaluated at least once, and once more at the end. An
    exception of a type in `retry_on` counts as "not yet"; any other one is passed on at once. `what` completes the
    sentence "waited for …". Raises WaitTimeout.
    """
    started = time.monotonic()
    polls = 0
    while True:
        late = time.monotonic() - started >= timeout
        polls += 1
        try:
            value = condition()
        except retry_on as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            if value:
                return value
            seen = repr(value)
        if late:
            raise WaitTimeout(
                f"waited {time.monotonic() - started:.1f} s for {what}, in vain\n"
                f"looked {polls} times; the last time it was: {_shortened(seen)}"
            )
        time.sleep(interval)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}… ({len(text)} characters)"
