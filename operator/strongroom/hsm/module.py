# SPDX-License-Identifier: Apache-2.0
"""A PKCS#11 library inside a worker: loading it, the few functions called directly, the token and its sessions.

python-pkcs11 finds and generates; what needs the exact return code, buffers of our own, or fewer calls goes through
ctypes on the same library and the same handles.
"""

import ctypes
import hashlib
from collections.abc import Callable
from typing import Any

from pkcs11 import TokenFlag, _pkcs11
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Object, Session, Slot

from strongroom.hsm import ckr, wire
from strongroom.hsm.ckr import CkrClass

CKF_OS_LOCKING_OK = 0x02
CKU_USER = 1
CKM_AES_GCM = 0x1087
_LOGGED_IN_STATES = (1, 3)
"""CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS."""


class CkrError(Exception):
    """A PKCS#11 function did not return CKR_OK."""

    def __init__(self, code: int) -> None:
        super().__init__(ckr.name_of(code))
        self.code = code

    @classmethod
    def of(cls, error: PKCS11Error) -> "CkrError":
        """The return code behind an exception of python-pkcs11, which carries it in its class or its text alone."""
        name = type(error).__name__
        code = _NAMED_DIFFERENTLY.get(name) or ckr.code_named(name)
        if code is None:
            _, _, number = str(error).partition("Unmapped error code ")
            code = int(number, 16) if number else ckr.CKR_FUNCTION_FAILED
        return cls(code)


_NAMED_DIFFERENTLY = {"FunctionCancelled": 0x50, "TokenNotRecognised": 0xE1, "AnotherUserAlreadyLoggedIn": 0x104}


class Outcome(Exception):
    """Ends a request with this answer."""

    def __init__(self, failure: wire.Failure, code: int = ckr.CKR_OK, *, index: int = 0) -> None:
        super().__init__(failure.value)
        self.failed = wire.Failed(failure, code, index)


class Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (
        ("mechanism", ctypes.c_ulong),
        ("parameter", ctypes.c_void_p),
        ("parameter_length", ctypes.c_ulong),
    )

    def __init__(self, mechanism: int, parameters: ctypes.Structure | None = None) -> None:
        if parameters is None:
            super().__init__(mechanism)
        else:
            super().__init__(mechanism, ctypes.addressof(parameters), ctypes.sizeof(parameters))
        self._parameters = parameters  # the address above is good for as long as this lives


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("length", ctypes.c_ulong))


class _InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = (
        ("slot", ctypes.c_ulong),
        ("state", ctypes.c_ulong),
        ("flags", ctypes.c_ulong),
        ("device_error", ctypes.c_ulong),
    )


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST: a version, then 68 functions in the order of pkcs11f.h."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 68))


class Functions:
    """C functions of one library, by their names. Each releases the GIL while it runs and raises CkrError."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        table = ctypes.POINTER(_FunctionList)()
        _check(library.C_GetFunctionList(ctypes.byref(table)))
        pointers = table.contents.functions
        ulong, pointer = ctypes.c_ulong, ctypes.c_void_p
        in_place = (ulong, pointer, ulong, pointer, pointer)  # session, input, its length, output, length in and out
        self.initialize = _function(pointers[0], pointer)
        self.finalize = _function(pointers[1], pointer)
        self.get_session_info = _function(pointers[15], ulong, pointer)
        self.login = _function(pointers[18], ulong, ulong, pointer, ulong)
        self.get_attribute_value = _function(pointers[24], ulong, ulong, pointer, ulong)
        self.encrypt_init = _function(pointers[29], ulong, pointer, ulong)
        self.encrypt = _function(pointers[30], *in_place)
        self.decrypt_init = _function(pointers[33], ulong, pointer, ulong)
        self.decrypt = _function(pointers[34], *in_place)
        self.wrap_key = _function(pointers[60], ulong, pointer, ulong, ulong, pointer, pointer)
        self.generate_random = _function(pointers[64], ulong, pointer, ulong)


def _function(address: int, *arguments: Any) -> Callable[..., None]:
    function = ctypes.CFUNCTYPE(ctypes.c_ulong, *arguments)(address)

    def call(*values: object) -> None:
        _check(function(*values))

    return call


def _check(code: int) -> None:
    if code != ckr.CKR_OK:
        raise CkrError(code)


class LockedLib(_pkcs11.lib):
    """A library initialised for threads.

    python-pkcs11 calls C_Initialize(NULL), which promises a single thread, but releases the GIL in every call: SoftHSM
    then runs without its mutexes and crashes. `initialize` is overridden to pass CKF_OS_LOCKING_OK; the base class
    calls it while constructing.
    """

    functions: Functions

    def initialize(self) -> None:
        """C_Initialize with CKF_OS_LOCKING_OK."""
        self.functions = Functions(self.so)
        self.functions.initialize(ctypes.byref(_InitializeArguments(flags=CKF_OS_LOCKING_OK)))

    def finalize(self) -> None:
        """C_Finalize. Nobody may be inside the library any more."""
        self.functions.finalize(None)


def handle_of(thing: Session | Object) -> int:
    """Its handle, for calls through `Functions`. python-pkcs11's types do not declare it for sessions."""
    handle: int = thing.handle  # type: ignore[union-attr, assignment]
    return handle


class OpenToken:
    """The one token that was asked for, logged in.

    The anchor session logs in and stays open until C_Finalize: closing it would log out every session of the process.
    """

    def __init__(self, library: LockedLib, slot: Slot, anchor: Session) -> None:
        self._library = library
        self._slot = slot
        self._anchor = anchor
        self.functions = library.functions

    def new_session(self) -> Session:
        """Another read-write session, logged in through the anchor. Some vendors have no read-only ones."""
        try:
            return self._slot.get_token().open(rw=True)
        except PKCS11Error as error:
            raise CkrError.of(error) from None

    def mechanisms(self) -> set[int]:
        """Ids of the mechanisms the token offers."""
        try:
            return {int(mechanism) for mechanism in self._slot.get_mechanisms()}
        except PKCS11Error as error:
            raise CkrError.of(error) from None

    def describe(self) -> wire.TokenDescription:
        """C_GetTokenInfo, asked anew."""
        try:
            token = self._slot.get_token()
        except PKCS11Error as error:
            raise CkrError.of(error) from None
        return wire.TokenDescription(
            label=token.label,
            manufacturer=token.manufacturer_id,
            model=token.model,
            serial=token.serial.decode("ascii", "replace").strip("\0 "),
            firmware=".".join(map(str, token.firmware_version)),
        )

    def check_health(self) -> None:
        """Raises Outcome(UNAVAILABLE) unless the token is there and we are logged in.

        Asked before anything is called missing or refused: SoftHSM whose directory vanished finds no object and knows
        no handle, but does not say that the token is gone.
        """
        info = _SessionInfo()
        try:
            self.describe()
            self.functions.get_session_info(handle_of(self._anchor), ctypes.byref(info))
        except CkrError as error:
            raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
        if info.state not in _LOGGED_IN_STATES:
            raise Outcome(wire.Failure.UNAVAILABLE)

    def close(self) -> None:
        """C_Finalize: ends every session. Not left to the interpreter's exit, where SoftHSM's destructors crash."""
        self._library.finalize()


class FoundToken:
    """The one token that was asked for, not logged in."""

    def __init__(self, library: LockedLib, slot: Slot) -> None:
        self._library = library
        self._slot = slot

    def log_in(self, pin: bytearray) -> OpenToken:
        """C_Login, once. The PIN is wiped before this returns or raises. Raises Outcome."""
        try:
            anchor = self._slot.get_token().open(rw=True)
            _login(self._library.functions, handle_of(anchor), pin)
            token = OpenToken(self._library, self._slot, anchor)
            if CKM_AES_GCM not in token.mechanisms():
                raise Outcome(wire.Failure.MECHANISM_MISSING)
        except PKCS11Error as error:
            raise Outcome(wire.Failure.UNAVAILABLE, CkrError.of(error).code) from None
        except CkrError as error:
            raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
        finally:
            wire.wipe(pin)
        return token


def find_token(start: wire.Start) -> FoundToken:
    """Load the library, find the token, and see that a wrong PIN would not be its last: the token keeps that count,
    however often we are started. Raises Outcome."""
    try:
        library = _load(start.module, start.module_sha256)
        slot = _find_slot(library, start.token_label)
        flags = slot.get_token().flags
    except PKCS11Error as error:
        raise Outcome(wire.Failure.UNAVAILABLE, CkrError.of(error).code) from None
    except CkrError as error:
        raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
    if TokenFlag.USER_PIN_LOCKED in flags:
        raise Outcome(wire.Failure.PIN_LOCKED)
    if TokenFlag.USER_PIN_FINAL_TRY in flags:
        raise Outcome(wire.Failure.PIN_FINAL_TRY)
    return FoundToken(library, slot)


def _load(path: str, sha256: str) -> LockedLib:
    try:
        return _load_exactly(path, sha256) if sha256 else LockedLib(path)
    except CkrError:
        raise
    except (OSError, AttributeError, PKCS11Error):  # not there, no library, no PKCS#11 library
        raise Outcome(wire.Failure.MODULE_UNUSABLE) from None


def _load_exactly(path: str, sha256: str) -> LockedLib:
    """What was hashed is what is loaded, even if another file takes its name in between. A library loaded so knows no
    directory of its own: what it finds by $ORIGIN has to be on the loader's path."""
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise Outcome(wire.Failure.MODULE_DIGEST_DIFFERS)
        return LockedLib(f"/proc/self/fd/{file.fileno()}")


def _find_slot(library: LockedLib, label: str) -> Slot:
    """The one slot whose token carries the label. Slots that fail to answer are passed over: another may hold it."""
    matching = []
    try:
        slots = library.get_slots(token_present=True)
    except PKCS11Error as error:
        raise CkrError.of(error) from None
    for slot in slots:
        try:
            if slot.get_token().label == label:
                matching.append(slot)
        except PKCS11Error:
            continue
    if not matching:
        raise Outcome(wire.Failure.TOKEN_NOT_FOUND)
    if len(matching) > 1:
        raise Outcome(wire.Failure.TOKEN_AMBIGUOUS)
    return matching[0]


def _login(functions: Functions, session: int, pin: bytearray) -> None:
    """C_Login on our own buffer: python-pkcs11 would leave copies of the PIN in Python strings.

    Every failure that does not say clearly that session or device is at fault is a refusal: a token may count it as a
    wrong PIN, whatever it calls it.
    """
    buffer = (ctypes.c_char * len(pin)).from_buffer(pin)
    try:
        functions.login(session, CKU_USER, ctypes.byref(buffer), len(pin))
    except CkrError as error:
        if error.code == ckr.CKR_USER_ALREADY_LOGGED_IN:
            return
        if ckr.class_of(error.code) in (CkrClass.DEVICE, CkrClass.SESSION):
            raise
        raise Outcome(wire.Failure.LOGIN_REFUSED, error.code) from None
