# SPDX-License-Identifier: Apache-2.0
"""The script that makes the SoftHSM token at the first start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.hsm.tokenfiles import refuse_open_files
from testbed import REPOSITORY

pytestmark = pytest.mark.hsm

SCRIPT = REPOSITORY / "charts" / "strongroom" / "files" / "init-softhsm.py"
LABEL = "strong room"
PIN = "correct horse"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the pod gives to the script: an empty volume, its configuration and the PIN."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o777)
    directory = tmp_path / "volume" / "tokens"
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {directory}\nobjectstore.backend = file\n")
    (tmp_path / "pin").write_bytes(f"{PIN}\r\n".encode())
    return {
        "PATH": os.environ["PATH"],
        "SOFTHSM2_CONF": str(configuration),
        "TOKEN_DIRECTORY": str(directory),
        "TOKEN_LABEL": LABEL,
        "PIN_FILE": str(tmp_path / "pin"),
    }


def run(*command: str | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def tokens(environment: dict[str, str]) -> list[str]:
    """Serial numbers of the tokens."""
    shown = run("softhsm2-util", "--show-slots", environment=environment).stdout
    numbers = [line.partition(":")[2].strip() for line in shown.splitlines() if "Serial number" in line]
    return [number for number in numbers if number]


def can_log_in(pin: str, environment: dict[str, str]) -> bool:
    script = (
        "import sys, pkcs11; module, label, pin = sys.argv[1:]; "
        "pkcs11.lib(module).get_token(token_label=label).open(user_pin=pin)"
    )
    arguments = (sys.executable, "-c", script, "/usr/lib/softhsm/libsofthsm2.so", LABEL, pin)
    return run(*arguments, environment=environment).returncode == 0


def test_token_is_made_once_and_opens_with_the_pin(environment: dict[str, str]) -> None:
    first = run(sys.executable, SCRIPT, environment=environment)
    assert (first.returncode, PIN in first.stdout + first.stderr) == (0, False), first.stderr
    made = tokens(environment)
    assert len(made) == 1
    refuse_open_files(environment)
    assert can_log_in(PIN, environment)
    assert not can_log_in(PIN[:-1], environment)

    again = run(sys.executable, SCRIPT, environment=environment)
    assert again.returncode == 0, again.stderr
    assert tokens(environment) == made


@pytest.mark.parametrize("pin", ["", "abc", "a" * 256, "ab\ncd", "ab\rcd", "ab\x03cd", "é" * 128])
def test_unusable_pin_is_refused_before_anything_is_made(pin: str, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pin").write_bytes(pin.encode())
    done = run(sys.executable, SCRIPT, environment=environment)
    assert done.returncode == 1
    assert "the PIN must be 4 to 255 printable characters" in done.stderr
    assert tokens(environment) == []


def test_missing_library_configuration_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    environment["SOFTHSM2_CONF"] = str(tmp_path / "nowhere.conf")
    assert run(sys.executable, SCRIPT, environment=environment).returncode != 0
