# SPDX-License-Identifier: Apache-2.0
"""Return codes: names for people, classes for decisions."""

import pytest

from strongroom.hsm import ckr
from strongroom.hsm.ckr import CkrClass


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        (0x05, "CKR_GENERAL_ERROR", CkrClass.AMBIGUOUS),
        (0x30, "CKR_DEVICE_ERROR", CkrClass.AMBIGUOUS),
        (0x32, "CKR_DEVICE_REMOVED", CkrClass.DEVICE),
        (0x40, "CKR_ENCRYPTED_DATA_INVALID", CkrClass.DATA),
        (0x42, "CKR_AEAD_DECRYPT_FAILED", CkrClass.DATA),
        (0x60, "CKR_KEY_HANDLE_INVALID", CkrClass.HANDLE),
        (0x82, "CKR_OBJECT_HANDLE_INVALID", CkrClass.HANDLE),
        (0x68, "CKR_KEY_FUNCTION_NOT_PERMITTED", CkrClass.CONFIGURATION),
        (0xA0, "CKR_PIN_INCORRECT", CkrClass.PIN),
        (0xA4, "CKR_PIN_LOCKED", CkrClass.PIN),
        (0xB3, "CKR_SESSION_HANDLE_INVALID", CkrClass.SESSION),
        (0x101, "CKR_USER_NOT_LOGGED_IN", CkrClass.LOGIN),
        (0x190, "CKR_CRYPTOKI_NOT_INITIALIZED", CkrClass.DEVICE),
        (0x80000001, "CKR_VENDOR_DEFINED+0x1", CkrClass.AMBIGUOUS),
        (0x7FFF, "CKR_0x7FFF", CkrClass.AMBIGUOUS),
    ],
)
def test_a_code_has_its_standard_name_and_class(code: int, name: str, kind: CkrClass) -> None:
    assert (ckr.name_of(code), ckr.class_of(code)) == (name, kind)


def test_no_pin_error_is_of_a_class_that_is_retried() -> None:
    for code in (0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0x102):
        assert ckr.class_of(code) is CkrClass.PIN
