# SPDX-License-Identifier: Apache-2.0
"""A PKCS#11 module in front of another one that makes it slow, faulty, or like another vendor's (tests/hsm/shim/).

Compiled with `cc` when first needed, cached by the digest of its source beside the test bed's other binaries.
"""

import hashlib
import itertools
import mmap
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from testbed import REPOSITORY, TestBedError
from testbed.building import cache_directory

_SOURCE = REPOSITORY / "tests" / "hsm" / "shim"
_COMPILE = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden")
_LIBRARIES = ("-ldl", "-lpthread")

_FUNCTIONS = 68
"""Functions in CK_FUNCTION_LIST: so many counters of calls, then those of faults."""
_FAULTS = 256
_COUNTER = struct.Struct("=Q")
_POSITIONS = {
    # in CK_FUNCTION_LIST, of what the shim wraps
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_GetTokenInfo": 6,
    "C_GetMechanismList": 7,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_CloseAllSessions": 14,
    "C_GetSessionInfo": 15,
    "C_Login": 18,
    "C_DestroyObject": 22,
    "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
    "C_FindObjectsFinal": 28,
    "C_EncryptInit": 29,
    "C_Encrypt": 30,
    "C_DecryptInit": 33,
    "C_Decrypt": 34,
    "C_SignInit": 42,
    "C_Sign": 43,
    "C_VerifyInit": 48,
    "C_Verify": 49,
    "C_GenerateKey": 58,
    "C_GenerateKeyPair": 59,
    "C_WrapKey": 60,
    "C_UnwrapKey": 61,
    "C_GenerateRandom": 64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a token behaves, other than the one behind. What is left out stays as it is there."""

    token_flags: int | None = None
    """Set in C_GetTokenInfo besides the token's own."""
    max_sessions: int | None = None
    """Shown there as ulMaxSessionCount."""
    max_rw_sessions: int | None = None
    session_limit: int | None = None
    """Sessions beyond so many are CKR_SESSION_COUNT."""
    read_write_only: bool = False
    """C_OpenSession without CKF_RW_SESSION is refused."""
    hide: tuple[int, ...] = ()
    """Mechanisms that are not there."""
    gcm_mechanism: int | None = None
    """AES-GCM under this number, too."""
    gcm_iv: str | None = None
    """`zero-buffer`, `prepended` or `appended`: the token makes the IV of an encryption, and where it goes."""
    gcm_iv_bytes: int | None = None
    gcm_iv_fault: str | None = None
    """`zeros` or `same`: what is wrong with the IVs that it makes."""
    accept_any_tag: bool = False
    """AES-GCM decrypts whatever the tag."""
    readable: bool = False
    """The value of new keys can be read, whatever their attributes say."""
    wrappable: bool = False
    """New keys can be wrapped, whatever their attributes say."""
    typed_hmac: bool = False
    """Keys for HMAC are CKK_SHA256_HMAC, of a length of their own; searches do not look at the type of a key."""
    cloud_kms: bool = False
    """C_GenerateKey takes CKA_LABEL and CKA_KMS_ALGORITHM, and nothing else."""
    max_id: int | None = None
    """Bytes of room for CKA_ID in a new object."""
    max_label: int | None = None
    login_pin: str | None = None
    """There is no C_Login; every session is logged in with this, and says that it is not."""

    def lines(self) -> list[str]:
        """As the control file has them."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value is not False:
                values = value if isinstance(value, tuple) else (1 if value is True else value,)
                lines += [f"{field.name.replace('_', '-')} {each}" for each in values]
        return lines


class Shim:
    """The shim in front of one module, for every process that is given `module` and `environment`.

    What is set acts on the next call of any of them. Not for two threads at a time.
    """

    def __init__(self, directory: Path, behind: Path) -> None:
        """`directory` exists and is the shim's own; `behind` is the module that does the work."""
        self.module = compiled()
        self._control = directory / "control"
        self._faults: dict[str, str] = {}
        self._habits = Habits()
        self._ids = itertools.cycle(range(_FAULTS))
        counts = Path(f"{self._control}.counts")
        counts.write_bytes(bytes(_COUNTER.size * (_FUNCTIONS + _FAULTS)))
        with counts.open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 0)
        self._write()
        self.environment = {"SHIM_MODULE": str(behind), "SHIM_CONTROL": str(self._control)}

    def config(self, token: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of `hsms` in the operator's configuration, with the shim in front of its module."""
        return {**token, "module": str(self.module), "environment": {**token["environment"], **self.environment}}

    def set(
        self,
        function: str,
        *,
        returns: int | None = None,
        after: bool = False,
        hangs: bool = False,
        crashes: bool = False,
        exits: bool = False,
        delays: float = 0.0,
        first: int = 1,
        times: int | None = None,
        input: str | None = None,  # noqa: A002 - the word for it in PKCS#11's function names
        attribute: int | None = None,
        mechanism: int | None = None,
    ) -> None:
        """One fault of a function, or of `*`, instead of the one it had.

        What: `returns` a code without calling the module (`after` calling it); `hangs` until the fault is cleared or
        replaced; `crashes` (SIGSEGV); `exits`; `delays` so many seconds, besides whatever else. When: from the `first`
        such call on, for so many `times` (for ever), and only if `input` (hex) is what C_Encrypt, C_Decrypt and their
        like are given, `attribute` is in the template, `mechanism` is the call's.
        """
        number = next(self._ids)
        _COUNTER.pack_into(self._counts, _COUNTER.size * (_FUNCTIONS + number), 0)
        words = {
            "id": number,
            "from": first,
            "times": times,
            "input": input,
            "attribute": attribute,
            "mechanism": mechanism,
            "delay": round(delays * 1e6) or None,
            "returns": returns,
        }
        flags = {"after": after, "hang": hangs, "crash": crashes, "exit": exits}
        said = [f"{word}={value}" for word, value in words.items() if value is not None]
        self._faults[function] = " ".join([function, *said, *(word for word, on in flags.items() if on)])
        self._write()

    def clear(self, function: str | None = None) -> None:
        """No fault of this function any more, or of none."""
        if function is None:
            self._faults.clear()
        else:
            del self._faults[function]
        self._write()

    def behave(self, habits: Habits) -> None:
        """These habits from now on, and no others. Keys, sessions and operations that are there stay what they are."""
        self._habits = habits
        self._write()

    def calls(self, function: str) -> int:
        """How often it was called, by all processes together."""
        count: int = _COUNTER.unpack_from(self._counts, _COUNTER.size * _POSITIONS[function])[0]
        return count

    def _write(self) -> None:
        partial = self._control.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in [*self._habits.lines(), *self._faults.values()]))
        partial.rename(self._control)


def compiled() -> Path:
    """The shim's library, compiled if need be. Raises TestBedError, such as when there is no compiler."""
    sources = sorted(_SOURCE.iterdir())
    digest = hashlib.sha256(repr(_COMPILE).encode() + b"".join(path.read_bytes() for path in sources)).hexdigest()
    library = cache_directory() / f"shim-{digest[:16]}.so"
    if library.exists():
        return library
    compiler = shutil.which("cc")
    if compiler is None:
        raise TestBedError("the PKCS#11 shim needs a C compiler, and there is no 'cc'. Run 'make dev'")
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="build-") as temporary:
        built = Path(temporary, library.name)
        units = [str(path) for path in sources if path.suffix == ".c"]
        command = [compiler, *_COMPILE, "-o", str(built), *units, *_LIBRARIES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestBedError(f"the PKCS#11 shim does not compile: {' '.join(command)}\n{done.stderr[:4000]}")
        built.rename(library)
    return library
