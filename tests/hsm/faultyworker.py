# SPDX-License-Identifier: Apache-2.0
"""The worker with a library whose functions misbehave as told, and which counts its calls.

`faultyworker.py DIRECTORY DESCRIPTOR PARENT`. The library's own function table is changed, so everybody in the process
meets the fault. DIRECTORY/<function>.fault, looked at in each call, holds JSON:

    {"returns": 5}       this return code, without calling the library
    {"crashes": true}    the process ends
    {"hangs": true}      never returns
    {"delays": 0.5}      seconds more than usual
    {"flags": 131072}    C_GetTokenInfo only: these flags besides the token's own
    "input": "68656c"    only if the input of the call (C_Encrypt, C_Decrypt) is this, in hex
    "attribute": 356     only if it is among those asked for (C_GetAttributeValue)
    "mechanism": 4229    only if the mechanism of the call (C_WrapKey) is this

DIRECTORY/<function>.calls is as many bytes long as there were calls.
"""

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strongroom.hsm import worker
from strongroom.hsm.module import Functions

# Position in CK_FUNCTION_LIST and number of arguments. Every one is a machine word.
_FUNCTIONS = {
    "C_GetTokenInfo": (6, 2),
    "C_Login": (18, 4),
    "C_GetAttributeValue": (24, 4),
    "C_FindObjectsInit": (26, 3),
    "C_Encrypt": (30, 5),
    "C_Decrypt": (34, 5),
    "C_GenerateKey": (58, 5),
    "C_WrapKey": (60, 6),
}
_FLAGS_OFFSET = 96
"""Of `flags` in CK_TOKEN_INFO."""
_CKR_OK = 0

_kept: list[object] = []


class _FunctionList(ctypes.Structure):
    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 68))


def _meant(fault: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    if "input" in fault and ctypes.string_at(arguments[1], arguments[2]).hex() != fault["input"]:
        return False
    if "attribute" in fault:
        words = (ctypes.c_ulong * (3 * arguments[3])).from_address(arguments[2])  # CK_ATTRIBUTE: type, address, length
        return fault["attribute"] in words[::3]
    return "mechanism" not in fault or ctypes.c_ulong.from_address(arguments[1]).value == fault["mechanism"]


def _interpose(name: str, real: Callable[..., int], directory: Path) -> Callable[..., int]:
    def call(*arguments: int) -> int:
        with (directory / f"{name}.calls").open("ab") as calls:
            calls.write(b".")
        try:
            fault = json.loads((directory / f"{name}.fault").read_text())
        except FileNotFoundError:
            return real(*arguments)
        if not _meant(fault, arguments):
            return real(*arguments)
        if "crashes" in fault:
            os._exit(1)
        if "hangs" in fault:
            threading.Event().wait()
        time.sleep(fault.get("delays", 0))
        if "returns" in fault:
            return int(fault["returns"])
        code = real(*arguments)
        if code == _CKR_OK and "flags" in fault:
            ctypes.c_ulong.from_address(arguments[1] + _FLAGS_OFFSET).value |= fault["flags"]
        return code

    return call


def _interpose_all(path: str, directory: Path) -> None:
    table = ctypes.POINTER(_FunctionList)()
    assert ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(table)) == _CKR_OK
    for name, (position, arity) in _FUNCTIONS.items():
        prototype = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * arity)
        real = prototype(table.contents.functions[position])
        ours = prototype(_interpose(name, lambda *a, real=real: real(*a), directory))  # type: ignore[misc]
        _kept.extend((real, ours))
        table.contents.functions[position] = ctypes.cast(ours, ctypes.c_void_p).value


def main() -> None:
    directory = Path(sys.argv.pop(1))
    load = Functions.__init__

    def load_and_interpose(functions: Functions, path: str) -> None:
        _interpose_all(path, directory)
        load(functions, path)

    Functions.__init__ = load_and_interpose  # type: ignore[method-assign]
    worker.main()


main()
