# SPDX-License-Identifier: Apache-2.0
"""Tokens are given another PIN by C_SetPIN, and no PIN is shown."""

import pytest

from testbed import TestBedError
from testbed.pkcs11token import change_pin
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm


def test_another_pin_is_the_only_one_then(new_token: SoftHsmToken) -> None:
    old, new = new_token.pin_file.read_text(), "another-pin-of-the-token"
    change_pin(new_token, new)
    with pytest.raises(TestBedError, match="C_Login returned 0xa0") as caught:
        change_pin(new_token, new)
    assert new_token.label in str(caught.value)
    assert old not in str(caught.value)
    new_token.pin_file.write_text(new)
    change_pin(new_token, old)
