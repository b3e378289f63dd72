# SPDX-License-Identifier: Apache-2.0
"""Every return code at every PKCS#11 function that the operator calls, one at a time, in a real worker: the outcome is
the table's (expectations.py), and the next operation works.

`make test-ckr` runs all of it; the rest of the suite one code of each class.
"""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from strongroom.hsm import ckr, supervisor
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.cryptoki import FUNCTION_NAMES
from testbed.shim import Shim
from testbed.softhsm import SoftHsmToken
from tests.hsm.ckrmatrix.expectations import EXCEPTIONS, Expected, expected, rows
from tests.hsm.ckrmatrix.victim import ACTIONS, Victim

pytestmark = [pytest.mark.hsm, pytest.mark.timeout(900)]

_VENDOR, _UNKNOWN = 0x80000042, 0x7F000000
CODES = [*(code for code in range(1, 0x1000) if not ckr.name_of(code).startswith("CKR_0x")), _VENDOR, _UNKNOWN]
_OF_EACH_CLASS = list({ckr.class_of(code): code for code in CODES}.values())
_LOOKED_AT_TWICE = (CkrClass.AMBIGUOUS, CkrClass.HANDLE)


@pytest.fixture
async def victim(new_token: SoftHsmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Victim]:
    """A Token whose worker is replaced at once, and as often as need be."""
    monkeypatch.setattr(supervisor, "_FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(supervisor, "_LAST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_PIN_POLL_SECONDS", 0.01)
    directory = tmp_path / "shim"
    directory.mkdir()
    victim = Victim(new_token, Shim(directory, new_token.module))
    yield victim
    await victim.close()


async def _mismatches(victim: Victim, what: str, function: str, codes: Sequence[int]) -> list[str]:
    await victim.open(what)
    wrong = []
    for code in codes:
        kind = ckr.class_of(code)
        for once in (False, True) if kind in _LOOKED_AT_TWICE and what not in _NEVER_ONCE else (False,):
            asked = expected(what, function, code, kind, once=once)
            seen = await victim.suffer(what, function, code, once=once)
            if seen != asked.value:
                how = "once" if once else "always"
                wrong.append(f"{ckr.name_of(code)} ({kind.name}) {how}: {seen}, expected {asked.value}")
    return wrong


_NEVER_ONCE = ("start", "login", "stop")
"""What starts anew by itself would be over before it is looked at."""


@pytest.mark.matrix
@pytest.mark.parametrize(("what", "function"), rows())
async def test_every_return_code_has_the_outcome_of_the_table(victim: Victim, what: str, function: str) -> None:
    wrong = await _mismatches(victim, what, function, CODES)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("what", "function"), rows())
async def test_a_return_code_of_each_class_has_the_outcome_of_the_table(
    victim: Victim, what: str, function: str
) -> None:
    wrong = await _mismatches(victim, what, function, _OF_EACH_CLASS)
    assert not wrong, "\n".join(wrong)


def test_every_function_that_is_called_is_in_the_table() -> None:
    assert {function for _, function in rows()} == set(FUNCTION_NAMES)


def test_every_row_can_be_acted_out_and_every_exception_is_one() -> None:
    assert {what for what, _ in rows()} == set(ACTIONS)
    for (what, function, code), special in EXCEPTIONS.items():
        assert (what, function) in rows()
        assert special is not _without_exception(what, function, code)


def _without_exception(what: str, function: str, code: int) -> Expected:
    kind = ckr.class_of(code)
    others = [each for each in CODES if ckr.class_of(each) is kind and (what, function, each) not in EXCEPTIONS]
    return expected(what, function, others[0], kind, once=False)
