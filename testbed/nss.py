# SPDX-License-Identifier: Apache-2.0
"""A token of NSS, the library of Firefox: one whose attributes promise more than it keeps, and that sizes wrongly."""

import secrets
import subprocess
from pathlib import Path
from typing import Any

from testbed import TestBedError
from testbed.certificates import write_private

# Debian and Ubuntu, for each architecture; Fedora.
_MODULES = ("lib/*-linux-gnu/libsoftokn3.so", "lib64/libsoftokn3.so")


class NssToken:
    """See `Pkcs11Token`. NSS takes its configuration with C_Initialize, as one string. PIN: 32 hexadecimal digits."""

    def __init__(self, directory: Path, label: str = "strongroom-test") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.label = label
        self.module = _module()
        self.environment: dict[str, str] = {}
        self.tokens = directory / "tokens"
        self.tokens.mkdir(mode=0o700)
        self.pin_file = directory / "pin"
        write_private(self.pin_file, secrets.token_hex(16).encode())
        done = subprocess.run(
            ["certutil", "-N", "-d", f"sql:{self.tokens}", "-f", str(self.pin_file)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TestBedError(f"certutil makes no token in {directory}: {done.stderr.strip()}")

    def config(self, name: str = "default") -> dict[str, Any]:
        """This token as an entry of `hsms` in the operator's configuration."""
        return {
            "name": name,
            "profile": "nss",
            "module": str(self.module),
            "libraryParameters": f"configdir='sql:{self.tokens}' dbTokenDescription='{self.label}'",
            "tokenLabel": self.label,
            "pinFile": str(self.pin_file),
            "environment": self.environment,
        }


def _module() -> Path:
    for pattern in _MODULES:
        for path in Path("/usr").glob(pattern):
            return path
    raise TestBedError("NSS is not installed: no libsoftokn3.so below /usr. Run 'make system-packages'")
