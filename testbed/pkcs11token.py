# SPDX-License-Identifier: Apache-2.0
"""What the software tokens of the test bed have in common, and how they are initialised and given another PIN.

A PKCS#11 library reads its configuration from the environment and is initialised once per process, so this file is also
a program: run by itself it does one thing to one token, as standard input says, and ends.
"""

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from testbed import TestBedError


class Pkcs11Token(Protocol):
    """An initialised token of one's own; nothing of the machine's configuration is used or changed."""

    module: Path
    label: str
    pin_file: Path
    """0600; it holds the PIN and nothing else."""
    environment: dict[str, str]
    """What the process that loads the module needs."""
    tokens: Path
    """Where the objects are: moved away, the token is gone; moved back, it is there again."""

    def config(self, name: str = "default") -> dict[str, Any]:
        """This token as an entry of `hsms` in the operator's configuration."""
        ...


def initialise(module: Path, environment: dict[str, str], label: str, so_pin: str, pin: str) -> None:
    """C_InitToken and C_InitPIN on the module's first slot. Raises TestBedError."""
    _run(environment, module=str(module), label=label, so_pin=so_pin, pin=pin)


def change_pin(token: Pkcs11Token, pin: str) -> None:
    """C_SetPIN by the user, as an administrator does it; `pin_file` keeps the old one. Raises TestBedError."""
    parameters = token.config().get("libraryParameters", "")
    old_pin = token.pin_file.read_text()
    _run(
        token.environment,
        module=str(token.module),
        label=token.label,
        library_parameters=parameters,
        old_pin=old_pin,
        pin=pin,
    )


def _run(environment: dict[str, str], **request: str) -> None:
    """PINs go by standard input: command lines are for everybody to see."""
    done = subprocess.run(
        [sys.executable, "-m", "testbed.pkcs11token"],
        env={"PYTHONPATH": str(Path(__file__).resolve().parent.parent), **environment},
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TestBedError(f"{request['module']}, token {request['label']}: {done.stderr.strip()}")


_POSITIONS = {  # in CK_FUNCTION_LIST, after the version
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_GetTokenInfo": 6,
    "C_InitToken": 9,
    "C_InitPIN": 10,
    "C_SetPIN": 11,
    "C_OpenSession": 12,
    "C_Login": 18,
}


class _Library:
    """A module's C functions, each as `call(name, arguments...)`."""

    def __init__(self, module: str) -> None:
        table = ctypes.POINTER(ctypes.c_void_p)()
        if ctypes.CDLL(module).C_GetFunctionList(ctypes.byref(table)):
            sys.exit("no C_GetFunctionList")
        self._functions = table  # a version, padded to the size of a pointer, then the functions

    def call(self, name: str, *arguments: Any) -> None:
        """Numbers go as CK_ULONG. Ends the program on any other return value than CKR_OK."""
        address = self._functions[1 + _POSITIONS[name]]
        types = [ctypes.c_ulong if isinstance(argument, int) else ctypes.c_void_p for argument in arguments]
        if code := ctypes.CFUNCTYPE(ctypes.c_ulong, *types)(address)(*arguments):
            sys.exit(f"{name} returned {code:#x}")


class _InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("mutexes", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_char_p),
    )


_OS_LOCKING_OK = 2
_RW_SERIAL = 6
_SO, _USER = 0, 1
_LABEL_BYTES = 32
_TOKEN_INFO_BYTES = 256  # CK_TOKEN_INFO has 208


def main() -> None:
    """Do what standard input says: with `so_pin` initialise the first slot, else change the PIN of `label`."""
    request = json.load(sys.stdin)
    library = _Library(request["module"])
    arguments = _InitializeArguments(
        flags=_OS_LOCKING_OK, reserved=request.get("library_parameters", "").encode() or None
    )
    library.call("C_Initialize", ctypes.byref(arguments))
    padded = request["label"].encode().ljust(_LABEL_BYTES)
    pin = request["pin"].encode()
    if so_pin := request.get("so_pin", "").encode():
        slot = _slots(library)[0]
        library.call("C_InitToken", slot, so_pin, len(so_pin), padded)
        session = _log_in(library, slot, _SO, so_pin)
        library.call("C_InitPIN", session, pin, len(pin))
    else:
        slot = next(slot for slot in _slots(library) if _label(library, slot) == padded)
        old_pin = request["old_pin"].encode()
        session = _log_in(library, slot, _USER, old_pin)
        library.call("C_SetPIN", session, old_pin, len(old_pin), pin, len(pin))
    library.call("C_Finalize", None)


def _slots(library: _Library) -> list[int]:
    count = ctypes.c_ulong()
    library.call("C_GetSlotList", 1, None, ctypes.byref(count))
    slots = (ctypes.c_ulong * count.value)()
    library.call("C_GetSlotList", 1, slots, ctypes.byref(count))
    return list(slots)


def _label(library: _Library, slot: int) -> bytes:
    info = ctypes.create_string_buffer(_TOKEN_INFO_BYTES)
    library.call("C_GetTokenInfo", slot, info)
    return info.raw[:_LABEL_BYTES]


def _log_in(library: _Library, slot: int, user: int, pin: bytes) -> int:
    session = ctypes.c_ulong()
    library.call("C_OpenSession", slot, _RW_SERIAL, None, None, ctypes.byref(session))
    library.call("C_Login", session.value, user, pin, len(pin))
    return session.value


if __name__ == "__main__":
    main()
