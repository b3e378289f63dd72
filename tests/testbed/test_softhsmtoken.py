# SPDX-License-Identifier: Apache-2.0
"""The token can be used by whoever has its files, and by nobody else."""

import subprocess
import sys
from pathlib import Path

import pytest

from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

_LOGIN = """
import sys, pathlib, pkcs11
module, label, pin_file = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label=label)
with token.open(user_pin=pathlib.Path(pin_file).read_text()) as session:
    print(session.generate_random(64).hex())
"""


def test_login_with_the_pin_file(new_token: SoftHsmToken) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOGIN, str(new_token.module), new_token.label, str(new_token.pin_file)],
        env=new_token.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(bytes.fromhex(done.stdout)) == 8


def test_pin_is_long_and_private(new_token: SoftHsmToken) -> None:
    assert new_token.pin_file.stat().st_mode & 0o077 == 0
    assert len(new_token.pin_file.read_text()) >= 32


def test_tokens_do_not_know_of_each_other(token: SoftHsmToken, new_token: SoftHsmToken, tmp_path: Path) -> None:
    slots = subprocess.run(
        ["softhsm2-util", "--show-slots"],
        env={"PATH": "/usr/bin", **new_token.environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert new_token.label in slots
    assert token.label not in slots
