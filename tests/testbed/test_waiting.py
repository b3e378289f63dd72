# SPDX-License-Identifier: Apache-2.0
"""A wait that fails must tell the whole story: it is often all that is left of a run."""

import itertools
import re
from collections.abc import Iterator

import pytest

from testbed.waiting import WaitTimeout, wait_for


def test_returns_the_first_true_value() -> None:
    values: Iterator[object] = iter([None, "", [], "there"])
    assert wait_for(lambda: next(values), 5, "a value", interval=0) == "there"


def test_failure_names_what_was_awaited_and_the_last_value() -> None:
    values: Iterator[object] = itertools.chain([None], itertools.repeat({}))
    with pytest.raises(WaitTimeout) as caught:
        wait_for(lambda: next(values), 0.05, "the labels of t-1", interval=0.01)
    assert re.fullmatch(
        r"waited 0\.\d s for the labels of t-1, in vain\nlooked \d+ times; the last time it was: \{\}",
        str(caught.value),
    )


def test_failure_shows_the_last_exception_that_meant_not_yet() -> None:
    def read() -> str:
        raise FileNotFoundError("no such file: ready")

    with pytest.raises(WaitTimeout, match="the last time it was: FileNotFoundError: no such file: ready"):
        wait_for(read, 0, "the file", retry_on=(OSError,))


def test_looks_once_even_without_time() -> None:
    assert wait_for(lambda: 1, 0, "nothing") == 1


def test_unexpected_exception_ends_the_wait_at_once() -> None:
    def broken() -> str:
        raise KeyError("status")

    with pytest.raises(KeyError):
        wait_for(broken, 60, "a status", retry_on=(OSError,))


def test_long_values_are_shortened() -> None:
    class Long(list[int]):
        def __repr__(self) -> str:
            return "x" * 5000

    with pytest.raises(WaitTimeout, match=r"x… \(5000 characters\)") as caught:
        wait_for(Long, 0, "x", interval=0)
    assert len(str(caught.value)) < 800
