# SPDX-License-Identifier: Apache-2.0
"""A SoftHSM token of its own for tests and the demonstration."""

import secrets
import subprocess
from pathlib import Path

from testbed import TestBedError
from testbed.certificates import write_private

# Debian and Ubuntu; Fedora.
_MODULES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib64/pkcs11/libsofthsm2.so"))


class SoftHsmToken:
    """An initialised token under `directory`: nothing of the machine's own SoftHSM configuration is used or changed.

    `module`, `label` and `pin_file` (0600) say how to reach it; `environment` is what the process that loads the module
    needs. The PIN is made here: 32 hexadecimal digits.
    """

    def __init__(self, directory: Path, label: str = "strongroom-test") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.label = label
        self.module = _module()
        self.directory = directory
        self.tokens = directory / "tokens"
        """Where SoftHSM keeps its objects: moved away, the token is gone; moved back, it is there again."""
        self.tokens.mkdir(mode=0o700)
        configuration = directory / "softhsm2.conf"
        configuration.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\n"
            "log.level = ERROR\nslots.removable = false\n"
        )
        self.environment = {"SOFTHSM2_CONF": str(configuration)}
        self.pin_file = directory / "pin"
        pin = secrets.token_hex(16)
        write_private(self.pin_file, pin.encode())
        self._initialise(pin)

    def _initialise(self, pin: str) -> None:
        # softhsm2-util takes PINs from its command line or from a terminal. This one protects nothing but test keys.
        done = subprocess.run(
            [
                *("softhsm2-util", "--init-token", "--free", "--label", self.label),
                *("--so-pin", secrets.token_hex(16), "--pin", pin),
            ],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TestBedError(f"softhsm2-util cannot make a token in {self.directory}: {done.stderr.strip()}")

    def config(self, name: str = "default") -> dict[str, object]:
        """This token as an entry of `hsms` in the operator's configuration."""
        return {
            "name": name,
            "profile": "softhsm",
            "module": str(self.module),
            "tokenLabel": self.label,
            "pinFile": str(self.pin_file),
            "environment": self.environment,
        }


def _module() -> Path:
    for path in _MODULES:
        if path.exists():
            return path
    raise TestBedError(f"SoftHSM is not installed: none of {', '.join(map(str, _MODULES))} exists. Run 'make dev'")
