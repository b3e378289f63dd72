# SPDX-License-Identifier: Apache-2.0
"""The PIN file: who may read it, what may be in it, and that a refused PIN is remembered."""

from pathlib import Path

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.pin import PinFile, PinFileError, PinMemory


def _file(tmp_path: Path, content: bytes, mode: int = 0o400) -> Path:
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"12345678", b"12345678\n", b"12345678\r\n"])
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_the_pin_is_read_without_its_newline(tmp_path: Path, content: bytes, mode: int) -> None:
    assert PinFile(str(_file(tmp_path, content, mode))).read() == b"12345678"


@pytest.mark.parametrize("mode", [0o404, 0o402, 0o401, 0o644, 0o666])
def test_a_file_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, b"12345678", mode)
    with pytest.raises(PinFileError) as caught:
        PinFile(str(path)).read()
    assert str(path) in caught.value.message
    assert f"chmod o= {path}" in caught.value.hint
    assert "12345678" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"1" * 256, b"1" * 100_000])
def test_an_empty_or_endless_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PinFileError, match="empty or holds more than 255 bytes"):
        PinFile(str(_file(tmp_path, content))).read()


def test_a_file_that_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PinFileError, match="No such file"):
        PinFile(str(tmp_path / "absent")).read()
    with pytest.raises(PinFileError, match="no regular file"):
        PinFile(str(tmp_path)).read()


def test_every_refused_pin_stays_refused_each_for_its_own_reason() -> None:
    memory = PinMemory()
    assert memory.refusal(bytearray(b"first")) is None
    problems = {pin: StrongroomError(Reason.HSM_PIN_INVALID, pin.decode()) for pin in (b"first", b"second")}
    for pin, problem in problems.items():
        memory.refuse(bytearray(pin), problem)
    for pin, problem in problems.items():
        assert memory.refusal(bytearray(pin)) is problem
    assert memory.refusal(bytearray(b"right")) is None


def test_unanswered_logins_are_counted_for_each_pin_until_it_works() -> None:
    memory = PinMemory()
    first, second = bytearray(b"first"), bytearray(b"second")
    assert [memory.count_unclear(pin, answered=False) for pin in (first, second, first)] == [0, 0, 0]
    memory.accept(first)
    assert [memory.count_unclear(first, answered=False) for _ in range(3)] == [0, 0, 600]
    assert [memory.count_unclear(second, answered=False) for _ in range(2)] == [0, 600]


def test_third_unanswered_login_and_each_further_one_puts_the_next_off_for_longer() -> None:
    memory = PinMemory()
    pauses = [memory.count_unclear(bytearray(b"a pin"), answered=False) for _ in range(40)]
    assert pauses[:7] == [0, 0, 600, 1200, 2400, 3600, 3600]
    assert set(pauses[7:]) == {3600}
    assert memory.count_unclear(bytearray(b"another"), answered=False) == 0


def test_a_login_that_is_answered_without_a_word_on_the_pin_puts_the_next_off_at_once() -> None:
    memory = PinMemory()
    assert [memory.count_unclear(bytearray(b"a pin"), answered=True) for _ in range(4)] == [600, 1200, 2400, 3600]


def test_pin_that_was_put_off_may_be_tried_when_its_time_has_come() -> None:
    now = 1000.0
    memory = PinMemory(clock=lambda: now)
    pin, refused = bytearray(b"put-off"), bytearray(b"refused")
    memory.refuse(pin, StrongroomError(Reason.HSM_UNAVAILABLE, "no answer"), 600)
    memory.refuse(refused, StrongroomError(Reason.HSM_PIN_INVALID, "refused"))
    now = 1599.0
    assert memory.refusal(pin) is not None
    now = 1600.0
    assert memory.refusal(pin) is None
    now = 1e12
    assert memory.refusal(refused) is not None
