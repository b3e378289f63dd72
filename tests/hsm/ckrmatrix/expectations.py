# SPDX-License-Identifier: Apache-2.0
"""What each return code at each PKCS#11 function must lead to: the table that people review.

A row is something the operator does, and a function that this calls. The code comes back from every call of that
function until the fault is cleared; where two outcomes are given, `always/once`, the second is that of a fault that
passes after one call.

    ok        it is done as if nothing had happened
    invalid   this value is bad (InvalidCiphertext): its object is marked, nobody else notices
    refused   HSMError: tried again with backoff, the token stays available
    away      HSMUnavailable: the worker is replaced, everything waits for that and heals by itself
    pin       HSMPinInvalid: no login until the PIN file changes, then healed
    held      HSMUnavailable: whether the PIN was counted as a wrong one is not known, so the next login is ten minutes
              off, unless the PIN file changes

Why the columns differ: a code of class DATA condemns a value only where the token was given one. An AMBIGUOUS one never
does by itself: what is known to be good must decrypt meanwhile, and the value must fail again. A lost HANDLE is looked
up again, once. SESSION, LOGIN and DEVICE mean that the process has lost its token, whatever it was doing. All else is a
refusal by a token that is well, which is asked for first. Under an RSA key every refusal looks the same.
"""

from enum import Enum, unique

from strongroom.hsm.ckr import CkrClass


@unique
class Expected(Enum):
    """What the operator sees."""

    OK = "ok"
    INVALID = "invalid"
    REFUSED = "refused"
    AWAY = "away"
    PIN = "pin"
    HELD = "held"


_COLUMNS = ("DATA", "AMBIGUOUS", "HANDLE", "SESSION", "LOGIN", "DEVICE", "PIN", "CONFIGURATION")
_TABLE = """
what         function             DATA     AMBIGUOUS     HANDLE      SESSION  LOGIN  DEVICE  PIN         CONFIGURATION
start        C_Initialize         away     away          away        away     away   away    away        away
start        C_GetSlotList        away     away          away        away     away   away    away        away
start        C_GetTokenInfo       away     away          away        away     away   away    away        away
start        C_OpenSession        away     away          away        away     away   away    away        away
start        C_GetMechanismList   away     away          away        away     away   away    away        away
login        C_Login              held     held          held        away     held   away    pin         pin
stop         C_Finalize           ok       ok            ok          ok       ok     ok      ok          ok
info         C_GetTokenInfo       away     away          away        away     away   away    away        away
info         C_GetSessionInfo     away     away          away        away     away   away    away        away
info         C_GenerateRandom     away     away          away        away     away   away    away        away
find         C_FindObjectsInit    refused  refused       refused/ok  away     away   away    refused     refused
find         C_FindObjects        refused  refused       refused/ok  away     away   away    refused     refused
find         C_FindObjectsFinal   refused  refused       refused/ok  away     away   away    refused     refused
find         C_GetAttributeValue  refused  refused       refused/ok  away     away   away    refused     refused
generate     C_FindObjectsInit    refused  refused       refused     away     away   away    refused     refused
generate     C_GenerateKey        refused  refused/ok    refused     away     away   away    refused     refused
generate-rsa C_GenerateKeyPair    refused  refused/ok    refused     away     away   away    refused     refused
verify       C_GetAttributeValue  refused  refused       refused/ok  away     away   away    refused     refused
verify       C_GetMechanismList   refused  refused       refused/ok  away     away   away    refused     refused
verify       C_GenerateKey        ok       ok            refused/ok  away     away   away    ok          ok
verify       C_WrapKey            ok       ok            refused/ok  away     away   away    ok          ok
verify       C_DestroyObject      refused  refused       refused/ok  away     away   away    refused     refused
seal         C_GenerateRandom     away     away/refused  away/ok     away     away   away    away        away
seal         C_EncryptInit        refused  away/refused  refused/ok  away     away   away    refused     refused
seal         C_Encrypt            refused  away/refused  refused/ok  away     away   away    refused     refused
open         C_DecryptInit        invalid  away/ok       refused/ok  away     away   away    refused     refused
open         C_Decrypt            invalid  away/ok       refused/ok  away     away   away    refused     refused
open-anew    C_FindObjectsInit    refused  refused       refused     away     away   away    refused     refused
seal-cbc     C_EncryptInit        refused  away/refused  refused/ok  away     away   away    refused     refused
seal-cbc     C_Encrypt            refused  away/refused  refused/ok  away     away   away    refused     refused
seal-cbc     C_SignInit           refused  away/refused  refused/ok  away     away   away    refused     refused
seal-cbc     C_Sign               refused  away/refused  refused/ok  away     away   away    refused     refused
open-cbc     C_VerifyInit         invalid  away/ok       refused/ok  away     away   away    refused     refused
open-cbc     C_Verify             invalid  away/ok       refused/ok  away     away   away    refused     refused
open-cbc     C_DecryptInit        invalid  away/ok       refused/ok  away     away   away    refused     refused
open-cbc     C_Decrypt            invalid  away/ok       refused/ok  away     away   away    refused     refused
open-rsa     C_UnwrapKey          away/ok  away/ok       refused/ok  away     away   away    refused/ok  refused/ok
open-rsa     C_DecryptInit        away/ok  away/ok       refused/ok  away     away   away    refused/ok  refused/ok
open-rsa     C_Decrypt            away/ok  away/ok       refused/ok  away     away   away    refused/ok  refused/ok
open-rsa     C_DestroyObject      refused  refused       refused/ok  away     away   away    refused     refused
"""

EXCEPTIONS: dict[tuple[str, str, int], Expected] = {
    # The search has ended with the failure that came before.
    ("find", "C_FindObjectsFinal", 0x91): Expected.OK,  # OPERATION_NOT_INITIALIZED
    # Attributes that a token does not have, or does not tell, or that are longer than ours, are those of foreign keys.
    ("find", "C_GetAttributeValue", 0x11): Expected.OK,  # ATTRIBUTE_SENSITIVE
    ("find", "C_GetAttributeValue", 0x12): Expected.OK,  # ATTRIBUTE_TYPE_INVALID
    ("find", "C_GetAttributeValue", 0x150): Expected.OK,  # BUFFER_TOO_SMALL
    # … and a key that does not say that it is sensitive is none of ours.
    ("verify", "C_GetAttributeValue", 0x150): Expected.REFUSED,
    # Somebody in this process has logged in, and that was us.
    ("login", "C_Login", 0x100): Expected.OK,  # USER_ALREADY_LOGGED_IN
}


def rows() -> list[tuple[str, str]]:
    """What the operator does, and the function that fails."""
    return [(line.split()[0], line.split()[1]) for line in _lines()]


def expected(what: str, function: str, code: int, kind: CkrClass, *, once: bool) -> Expected:
    """The outcome that the table asks for."""
    special = EXCEPTIONS.get((what, function, code))
    if special is not None:
        return special
    (cells,) = [line.split()[2:] for line in _lines() if line.split()[:2] == [what, function]]
    always, _, passing = cells[_COLUMNS.index(kind.name)].partition("/")
    return Expected(passing if once and passing else always)


def _lines() -> list[str]:
    header, *lines = _TABLE.strip().splitlines()
    assert tuple(header.split()[2:]) == _COLUMNS
    return lines
