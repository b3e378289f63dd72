# SPDX-License-Identifier: Apache-2.0
"""docs/errors.md says of every reason what strongroom.errors says."""

import pytest

from strongroom.cli.exits import Exit
from strongroom.errors import Healing, Reason
from strongroom.model import conditions
from tests.docs.documents import read, rows, section

DOCUMENT = read("docs/errors.md")
REASONS = {cells[0].split()[0].strip("`"): cells for cells in rows(section(DOCUMENT, "Reasons"))}


def test_every_reason_is_explained_and_no_other() -> None:
    assert list(REASONS) == [reason.value for reason in Reason]


@pytest.mark.parametrize("reason", Reason)
def test_status_and_cure_are_those_of_the_code(reason: Reason) -> None:
    _, status, healing, meaning, what_to_do = REASONS[reason.value]
    assert int(status) == reason.http_status
    assert healing == reason.healing.value
    assert meaning
    assert what_to_do


def test_every_cure_is_explained_with_what_it_is_shown_as() -> None:
    shown = {cells[0]: cells[1] for cells in rows(section(DOCUMENT, "What heals a failure"))}
    assert list(shown) == [healing.value for healing in Healing]
    for reason in Reason:
        written = conditions.not_ready(reason, "", 1)[1].type.value
        assert shown[reason.healing.value].startswith(written)


def test_every_exit_code_is_explained() -> None:
    codes = [int(cells[0]) for cells in rows(section(DOCUMENT, "Exit codes of the command line"))]
    assert codes == [code.value for code in Exit]
