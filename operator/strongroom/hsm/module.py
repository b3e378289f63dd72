# SPDX-License-Identifier: Apache-2.0
"""A PKCS#11 library inside a worker: loading it, finding the token, logging in, opening sessions."""

import contextlib
import ctypes
import hashlib
from collections.abc import Iterator

from strongroom.hsm import ckr, wire
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.cryptoki import (
    CK_EFFECTIVELY_INFINITE,
    CK_UNAVAILABLE_INFORMATION,
    CKF_OS_LOCKING_OK,
    CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_LOCKED,
    CKM_AES_CBC,
    CKM_SHA256_HMAC,
    CKS_USER_STATES,
    CKU_USER,
    CkrError,
    CryptokiSession,
    Functions,
    InitializeArguments,
    SessionInfo,
    TokenInfo,
    ulong,
)
from strongroom.hsm.outcome import Outcome
from strongroom.profiles import Aead, Profile

_NEEDED = {Aead.CBC_HMAC: {CKM_AES_CBC, CKM_SHA256_HMAC}}
"""Mechanisms besides the profile's own for AES-GCM."""
_RANDOM_BYTES = 16
"""Some tokens refuse to give fewer than 8 at a time."""


class FoundToken:
    """The one token that was asked for, with its anchor session, not logged in."""

    def __init__(self, token: "OpenToken") -> None:
        self._token = token

    def log_in(self, pin: bytearray) -> "OpenToken":
        """C_Login, once, if the profile has it, and nothing else: whatever fails or hangs here may have cost a try of
        the PIN. It is wiped before this returns or raises. Raises Outcome."""
        try:
            if self._token.profile.login:
                _login(self._token.anchor, pin)
        except CkrError as error:
            raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
        finally:
            wire.wipe(pin)
        return self._token

    def close(self) -> None:
        """C_Finalize: ends every session. Not left to the interpreter's exit, where SoftHSM's destructors crash. Raises
        CkrError."""
        self._token.functions.C_Finalize(None)


class OpenToken:
    """The one token that was asked for, logged in.

    The anchor session logs in and stays open until C_Finalize: a token logs out every session of the process when the
    last one is closed, some when the first is.
    """

    def __init__(self, functions: Functions, slot: int, profile: Profile, anchor: CryptokiSession) -> None:
        self.functions = functions
        self.profile = profile
        self.anchor = anchor
        """Read-write; for one thread."""
        self._slot = slot

    def open_sessions(self, wanted: int) -> list[CryptokiSession]:
        """Up to so many sessions for values, logged in through the anchor: as many as the token lets us have, at least
        one. Raises Outcome."""
        try:
            wanted = min(wanted, self._session_limit())
        except CkrError as error:
            raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
        sessions: list[CryptokiSession] = []
        try:
            while len(sessions) < wanted:
                read_write = not self.profile.read_only_sessions
                sessions.append(CryptokiSession.open(self.functions, self._slot, read_write=read_write))
        except CkrError as error:
            if not sessions or error.code != ckr.CKR_SESSION_COUNT:
                raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
        return sessions

    def _session_limit(self) -> int:
        """What C_GetTokenInfo leaves beside the anchor; at least 1, so that the token itself says no."""
        info = _token_info(self.functions, self._slot)
        limits = [info.max_sessions]
        if not self.profile.read_only_sessions:
            limits.append(info.max_rw_sessions)
        known = [limit for limit in limits if limit not in (CK_EFFECTIVELY_INFINITE, CK_UNAVAILABLE_INFORMATION)]
        return max(1, int(min(known)) - 1) if known else CK_UNAVAILABLE_INFORMATION

    def mechanisms(self) -> set[int]:
        """Numbers of the mechanisms the token offers. Raises CkrError."""
        count = ulong()
        self.functions.C_GetMechanismList(self._slot, None, ctypes.byref(count))
        found = (ulong * count.value)()
        self.functions.C_GetMechanismList(self._slot, found, ctypes.byref(count))
        return set(found[: count.value])

    def check_mechanisms(self) -> None:
        """Raises Outcome(MECHANISM_MISSING) unless the token offers what the profile encrypts with; CkrError."""
        if not _NEEDED.get(self.profile.aead, {self.profile.gcm_mechanism}) <= self.mechanisms():
            raise Outcome(wire.Failure.MECHANISM_MISSING)

    def describe(self) -> wire.TokenDescription:
        """C_GetTokenInfo, asked anew. Raises CkrError."""
        info = _token_info(self.functions, self._slot)
        return wire.TokenDescription(
            label=_text(info.label),
            manufacturer=_text(info.manufacturer),
            model=_text(info.model),
            serial=_text(info.serial),
            firmware=f"{info.firmware_version.major}.{info.firmware_version.minor}",
        )

    def check_health(self, session: CryptokiSession) -> None:
        """Raises Outcome(UNAVAILABLE) unless the token is there and this session is logged in.

        Asked before anything is called missing or refused: SoftHSM whose directory vanished finds no object and knows
        no handle, but does not say that the token is gone. Random bytes are asked for because some libraries answer
        everything else from memory.
        """
        info, random = SessionInfo(), ctypes.create_string_buffer(_RANDOM_BYTES)
        try:
            _token_info(self.functions, self._slot)
            self.functions.C_GetSessionInfo(session.handle, ctypes.byref(info))
            self.functions.C_GenerateRandom(session.handle, random, len(random))
        except CkrError as error:
            raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None
        if self.profile.login and info.state not in CKS_USER_STATES:
            raise Outcome(wire.Failure.UNAVAILABLE, ckr.CKR_USER_NOT_LOGGED_IN)


def find_token(start: wire.Start) -> FoundToken:
    """Load the library, find the token, see that a wrong PIN would not be its last (the token keeps that count, however
    often we are started), and open the anchor session. Raises Outcome."""
    try:
        functions = _load(start.module, start.module_sha256)
        _initialize(functions, start.library_parameters)
        try:
            return FoundToken(_find_token(functions, start))
        except BaseException:
            with contextlib.suppress(CkrError):
                functions.C_Finalize(None)
            raise
    except CkrError as error:
        raise Outcome(wire.Failure.UNAVAILABLE, error.code) from None


def _find_token(functions: Functions, start: wire.Start) -> OpenToken:
    slot, info = _find_slot(functions, start.token_label)
    if start.profile.login:
        _check_pin_tries(info)
    anchor = CryptokiSession.open(functions, slot, read_write=True)
    token = OpenToken(functions, slot, start.profile, anchor)
    token.check_mechanisms()
    return token


def _check_pin_tries(info: TokenInfo) -> None:
    if info.flags & CKF_USER_PIN_LOCKED:
        raise Outcome(wire.Failure.PIN_LOCKED)
    if info.flags & CKF_USER_PIN_FINAL_TRY:
        raise Outcome(wire.Failure.PIN_FINAL_TRY)


def _load(path: str, sha256: str) -> Functions:
    try:
        return _load_exactly(path, sha256) if sha256 else Functions(path)
    except (OSError, AttributeError):  # not there, no library, no PKCS#11 library
        raise Outcome(wire.Failure.MODULE_UNUSABLE) from None


def _load_exactly(path: str, sha256: str) -> Functions:
    """What was hashed is what is loaded, even if another file takes its name in between; not if somebody writes into
    this very file meanwhile. A library loaded so knows no
    directory of its own: what it finds by $ORIGIN has to be on the loader's path."""
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise Outcome(wire.Failure.MODULE_DIGEST_DIFFERS)
        return Functions(f"/proc/self/fd/{file.fileno()}")


def _initialize(functions: Functions, parameters: str) -> None:
    """C_Initialize for threads: NULL for arguments would promise a single one, and SoftHSM would then run without its
    mutexes and crash."""
    reserved = ctypes.create_string_buffer(parameters.encode()) if parameters else None
    arguments = InitializeArguments(
        flags=CKF_OS_LOCKING_OK, reserved=ctypes.addressof(reserved) if reserved is not None else None
    )
    functions.C_Initialize(ctypes.byref(arguments))


def _find_slot(functions: Functions, label: str) -> tuple[int, TokenInfo]:
    """The one slot whose token carries the label."""
    matching = [(slot, info) for slot, info in _tokens(functions) if _text(info.label) == label]
    if not matching:
        raise Outcome(wire.Failure.TOKEN_NOT_FOUND)
    if len(matching) > 1:
        raise Outcome(wire.Failure.TOKEN_AMBIGUOUS)
    return matching[0]


def _tokens(functions: Functions) -> Iterator[tuple[int, TokenInfo]]:
    """Slots with a token. Those that fail to answer are passed over: another may hold the one."""
    present, count = 1, ulong()
    functions.C_GetSlotList(present, None, ctypes.byref(count))
    slots = (ulong * count.value)()
    functions.C_GetSlotList(present, slots, ctypes.byref(count))
    for slot in slots[: count.value]:
        try:
            yield slot, _token_info(functions, slot)
        except CkrError:
            continue


def _token_info(functions: Functions, slot: int) -> TokenInfo:
    info = TokenInfo()
    functions.C_GetTokenInfo(slot, ctypes.byref(info))
    return info


def _text(padded: bytes) -> str:
    return padded.decode("utf-8", "replace").rstrip(" \0")


def _login(anchor: CryptokiSession, pin: bytearray) -> None:
    """C_Login on our own buffer, so that no copy of the PIN is left behind.

    Where a code says neither that session or device is at fault nor what is wrong with the PIN, a token may have
    counted a wrong one: that is for whoever knows how often it was so.
    """
    buffer = (ctypes.c_char * len(pin)).from_buffer(pin)
    try:
        anchor.functions.C_Login(anchor.handle, CKU_USER, ctypes.byref(buffer), len(pin))
    except CkrError as error:
        if error.code == ckr.CKR_USER_ALREADY_LOGGED_IN:
            return
        match ckr.class_of(error.code):
            case CkrClass.DEVICE | CkrClass.SESSION:
                raise
            case CkrClass.PIN | CkrClass.CONFIGURATION:
                raise Outcome(wire.Failure.LOGIN_REFUSED, error.code) from None
            case _:
                raise Outcome(wire.Failure.LOGIN_UNCLEAR, error.code) from None
