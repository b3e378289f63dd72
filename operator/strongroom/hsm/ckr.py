# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 return codes (CK_RV): their names, and the class that says what follows from each.

Numbers and names are those of PKCS#11 2.40 section 1.1.5 and 3.1 (pkcs11t.h). What a class leads to is decided in
`session`, once.
"""

from enum import Enum, unique

CKR_OK = 0x00
CKR_ATTRIBUTE_SENSITIVE = 0x11
CKR_ATTRIBUTE_TYPE_INVALID = 0x12
CKR_ATTRIBUTE_VALUE_INVALID = 0x13
CKR_FUNCTION_NOT_SUPPORTED = 0x54
CKR_OPERATION_NOT_INITIALIZED = 0x91
CKR_SESSION_COUNT = 0xB1
CKR_TEMPLATE_INCONSISTENT = 0xD1
CKR_USER_ALREADY_LOGGED_IN = 0x100
CKR_USER_NOT_LOGGED_IN = 0x101
CKR_BUFFER_TOO_SMALL = 0x150
_CKR_VENDOR_DEFINED = 0x80000000


@unique
class CkrClass(Enum):
    """What a return code says about where the fault lies."""

    DATA = "data"
    """The caller's data: this value is bad, the token is well."""
    AMBIGUOUS = "ambiguous"
    """Some tokens answer this for bad data, others when they are dying: a canary tells."""
    SESSION = "session"
    """The session is gone or confused: only a new one helps."""
    LOGIN = "login"
    """We are not logged in any more."""
    HANDLE = "handle"
    """The key's handle is not known: the key is gone, or the token is."""
    DEVICE = "device"
    """The token or its library does not work now; it may again."""
    PIN = "pin"
    """The token does not accept the PIN. Never tried twice."""
    CONFIGURATION = "configuration"
    """The token will not do this, now or later: mechanism, template or key attributes."""


_CODES: dict[int, tuple[str, CkrClass]] = {
    0x01: ("CANCEL", CkrClass.DEVICE),
    0x02: ("HOST_MEMORY", CkrClass.DEVICE),
    0x03: ("SLOT_ID_INVALID", CkrClass.DEVICE),
    0x05: ("GENERAL_ERROR", CkrClass.AMBIGUOUS),
    0x06: ("FUNCTION_FAILED", CkrClass.AMBIGUOUS),
    0x07: ("ARGUMENTS_BAD", CkrClass.AMBIGUOUS),
    0x08: ("NO_EVENT", CkrClass.CONFIGURATION),
    0x09: ("NEED_TO_CREATE_THREADS", CkrClass.CONFIGURATION),
    0x0A: ("CANT_LOCK", CkrClass.CONFIGURATION),
    0x10: ("ATTRIBUTE_READ_ONLY", CkrClass.CONFIGURATION),
    0x11: ("ATTRIBUTE_SENSITIVE", CkrClass.CONFIGURATION),
    0x12: ("ATTRIBUTE_TYPE_INVALID", CkrClass.CONFIGURATION),
    0x13: ("ATTRIBUTE_VALUE_INVALID", CkrClass.CONFIGURATION),
    0x1B: ("ACTION_PROHIBITED", CkrClass.CONFIGURATION),
    0x20: ("DATA_INVALID", CkrClass.AMBIGUOUS),
    0x21: ("DATA_LEN_RANGE", CkrClass.DATA),
    0x30: ("DEVICE_ERROR", CkrClass.AMBIGUOUS),
    0x31: ("DEVICE_MEMORY", CkrClass.DEVICE),
    0x32: ("DEVICE_REMOVED", CkrClass.DEVICE),
    0x40: ("ENCRYPTED_DATA_INVALID", CkrClass.DATA),
    0x41: ("ENCRYPTED_DATA_LEN_RANGE", CkrClass.DATA),
    0x42: ("AEAD_DECRYPT_FAILED", CkrClass.DATA),
    0x50: ("FUNCTION_CANCELED", CkrClass.DEVICE),
    0x51: ("FUNCTION_NOT_PARALLEL", CkrClass.CONFIGURATION),
    0x54: ("FUNCTION_NOT_SUPPORTED", CkrClass.CONFIGURATION),
    0x60: ("KEY_HANDLE_INVALID", CkrClass.HANDLE),
    0x62: ("KEY_SIZE_RANGE", CkrClass.CONFIGURATION),
    0x63: ("KEY_TYPE_INCONSISTENT", CkrClass.CONFIGURATION),
    0x64: ("KEY_NOT_NEEDED", CkrClass.CONFIGURATION),
    0x65: ("KEY_CHANGED", CkrClass.CONFIGURATION),
    0x66: ("KEY_NEEDED", CkrClass.CONFIGURATION),
    0x67: ("KEY_INDIGESTIBLE", CkrClass.CONFIGURATION),
    0x68: ("KEY_FUNCTION_NOT_PERMITTED", CkrClass.CONFIGURATION),
    0x69: ("KEY_NOT_WRAPPABLE", CkrClass.CONFIGURATION),
    0x6A: ("KEY_UNEXTRACTABLE", CkrClass.CONFIGURATION),
    0x70: ("MECHANISM_INVALID", CkrClass.CONFIGURATION),
    0x71: ("MECHANISM_PARAM_INVALID", CkrClass.CONFIGURATION),
    0x82: ("OBJECT_HANDLE_INVALID", CkrClass.HANDLE),
    0x90: ("OPERATION_ACTIVE", CkrClass.SESSION),
    0x91: ("OPERATION_NOT_INITIALIZED", CkrClass.SESSION),
    0xA0: ("PIN_INCORRECT", CkrClass.PIN),
    0xA1: ("PIN_INVALID", CkrClass.PIN),
    0xA2: ("PIN_LEN_RANGE", CkrClass.PIN),
    0xA3: ("PIN_EXPIRED", CkrClass.PIN),
    0xA4: ("PIN_LOCKED", CkrClass.PIN),
    0xB0: ("SESSION_CLOSED", CkrClass.SESSION),
    0xB1: ("SESSION_COUNT", CkrClass.DEVICE),
    0xB3: ("SESSION_HANDLE_INVALID", CkrClass.SESSION),
    0xB4: ("SESSION_PARALLEL_NOT_SUPPORTED", CkrClass.CONFIGURATION),
    0xB5: ("SESSION_READ_ONLY", CkrClass.CONFIGURATION),
    0xB6: ("SESSION_EXISTS", CkrClass.SESSION),
    0xB7: ("SESSION_READ_ONLY_EXISTS", CkrClass.SESSION),
    0xB8: ("SESSION_READ_WRITE_SO_EXISTS", CkrClass.SESSION),
    0xC0: ("SIGNATURE_INVALID", CkrClass.DATA),
    0xC1: ("SIGNATURE_LEN_RANGE", CkrClass.DATA),
    0xD0: ("TEMPLATE_INCOMPLETE", CkrClass.CONFIGURATION),
    0xD1: ("TEMPLATE_INCONSISTENT", CkrClass.CONFIGURATION),
    0xE0: ("TOKEN_NOT_PRESENT", CkrClass.DEVICE),
    0xE1: ("TOKEN_NOT_RECOGNIZED", CkrClass.DEVICE),
    0xE2: ("TOKEN_WRITE_PROTECTED", CkrClass.CONFIGURATION),
    0xF0: ("UNWRAPPING_KEY_HANDLE_INVALID", CkrClass.HANDLE),
    0xF1: ("UNWRAPPING_KEY_SIZE_RANGE", CkrClass.CONFIGURATION),
    0xF2: ("UNWRAPPING_KEY_TYPE_INCONSISTENT", CkrClass.CONFIGURATION),
    0x100: ("USER_ALREADY_LOGGED_IN", CkrClass.LOGIN),
    0x101: ("USER_NOT_LOGGED_IN", CkrClass.LOGIN),
    0x102: ("USER_PIN_NOT_INITIALIZED", CkrClass.PIN),
    0x103: ("USER_TYPE_INVALID", CkrClass.CONFIGURATION),
    0x104: ("USER_ANOTHER_ALREADY_LOGGED_IN", CkrClass.LOGIN),
    0x105: ("USER_TOO_MANY_TYPES", CkrClass.LOGIN),
    0x110: ("WRAPPED_KEY_INVALID", CkrClass.DATA),
    0x112: ("WRAPPED_KEY_LEN_RANGE", CkrClass.DATA),
    0x113: ("WRAPPING_KEY_HANDLE_INVALID", CkrClass.HANDLE),
    0x114: ("WRAPPING_KEY_SIZE_RANGE", CkrClass.CONFIGURATION),
    0x115: ("WRAPPING_KEY_TYPE_INCONSISTENT", CkrClass.CONFIGURATION),
    0x120: ("RANDOM_SEED_NOT_SUPPORTED", CkrClass.CONFIGURATION),
    0x121: ("RANDOM_NO_RNG", CkrClass.CONFIGURATION),
    0x130: ("DOMAIN_PARAMS_INVALID", CkrClass.CONFIGURATION),
    0x140: ("CURVE_NOT_SUPPORTED", CkrClass.CONFIGURATION),
    0x150: ("BUFFER_TOO_SMALL", CkrClass.SESSION),
    0x160: ("SAVED_STATE_INVALID", CkrClass.SESSION),
    0x170: ("INFORMATION_SENSITIVE", CkrClass.CONFIGURATION),
    0x180: ("STATE_UNSAVEABLE", CkrClass.CONFIGURATION),
    0x190: ("CRYPTOKI_NOT_INITIALIZED", CkrClass.DEVICE),
    0x191: ("CRYPTOKI_ALREADY_INITIALIZED", CkrClass.DEVICE),
    0x1A0: ("MUTEX_BAD", CkrClass.DEVICE),
    0x1A1: ("MUTEX_NOT_LOCKED", CkrClass.DEVICE),
    0x1B5: ("EXCEEDED_MAX_ITERATIONS", CkrClass.CONFIGURATION),
    0x1B6: ("FIPS_SELF_TEST_FAILED", CkrClass.DEVICE),
    0x1B7: ("LIBRARY_LOAD_FAILED", CkrClass.DEVICE),
    0x1B8: ("PIN_TOO_WEAK", CkrClass.PIN),
    0x1B9: ("PUBLIC_KEY_INVALID", CkrClass.CONFIGURATION),
    0x200: ("FUNCTION_REJECTED", CkrClass.CONFIGURATION),
    0x201: ("TOKEN_RESOURCE_EXCEEDED", CkrClass.DEVICE),
    0x202: ("OPERATION_CANCEL_FAILED", CkrClass.SESSION),
    0x203: ("KEY_EXHAUSTED", CkrClass.CONFIGURATION),
}


def name_of(code: int) -> str:
    """`CKR_…`; a vendor's code as `CKR_VENDOR_DEFINED+0x…`, an unknown one as `CKR_0x…`. Goes to the audit record."""
    known = _CODES.get(code)
    if known is not None:
        return f"CKR_{known[0]}"
    if code == CKR_OK:
        return "CKR_OK"
    if code & _CKR_VENDOR_DEFINED:
        return f"CKR_VENDOR_DEFINED+0x{code ^ _CKR_VENDOR_DEFINED:X}"
    return f"CKR_0x{code:X}"


def class_of(code: int) -> CkrClass:
    """Class of a failure. An unknown code is AMBIGUOUS: the canary decides, so that no vendor's code for a bad tag
    is taken for an outage. Not defined for CKR_OK."""
    return _CODES[code][1] if code in _CODES else CkrClass.AMBIGUOUS
