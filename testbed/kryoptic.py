# SPDX-License-Identifier: Apache-2.0
"""A token of kryoptic, the software token written in Rust, built once from the crates that Cargo.lock pins.

`python -m testbed.kryoptic` builds it if need be (a minute on two cores) and prints where the module is. Needs Rust, a
C compiler, libclang, and the development files of OpenSSL and SQLite; all but Rust come with `make system-packages`.
"""

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from testbed import REPOSITORY, TestBedError
from testbed.building import cache_directory, locked, run, say
from testbed.certificates import write_private
from testbed.pkcs11token import initialise

_PROJECT = REPOSITORY / "testbed" / "rust" / "kryoptic"
_MODULE = "libkryoptic_pkcs11.so"
_MINIMUM_CARGO = (1, 89)


class KryopticToken:
    """See `Pkcs11Token`. The PIN is made here: 32 hexadecimal digits."""

    def __init__(self, directory: Path, label: str = "strongroom-test") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.label = label
        self.module = ensure_module()
        self.tokens = directory / "tokens"
        self.tokens.mkdir(mode=0o700)
        configuration = directory / "kryoptic.toml"
        configuration.write_text(f'[[slots]]\nslot = 1\ndbtype = "sqlite"\ndbargs = "{self.tokens / "token.sql"}"\n')
        self.environment = {"KRYOPTIC_CONF": str(configuration)}
        self.pin_file = directory / "pin"
        pin = secrets.token_hex(16)
        write_private(self.pin_file, pin.encode())
        initialise(self.module, self.environment, label, so_pin=secrets.token_hex(16), pin=pin)

    def config(self, name: str = "default") -> dict[str, Any]:
        """This token as an entry of `hsms` in the operator's configuration."""
        return {
            "name": name,
            "profile": "kryoptic",
            "module": str(self.module),
            "tokenLabel": self.label,
            "pinFile": str(self.pin_file),
            "environment": self.environment,
        }


def ensure_module() -> Path:
    """The module, built if this version of it is not in the cache. Raises TestBedError."""
    path = cache_directory() / f"kryoptic-{_version()}-{_fingerprint()}" / _MODULE
    with locked("kryoptic"):
        if not path.exists():
            _build(path)
    return path


def _build(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="build-") as temporary:
        run(
            f"build kryoptic {_version()}",
            [_cargo(), "build", "--release", "--locked"],
            os.environ | {"CARGO_TARGET_DIR": temporary},
            _PROJECT,
        )
        path.parent.mkdir(exist_ok=True)
        Path(temporary, "release", _MODULE).rename(path)


def _cargo() -> str:
    needed = ".".join(map(str, _MINIMUM_CARGO))
    cargo = shutil.which("cargo")
    if cargo is None:
        raise TestBedError(f"kryoptic is built from Rust: install Rust {needed} or newer, with `cargo` on PATH")
    shown = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"cargo (\d+)\.(\d+)", shown)
    if version is None or (int(version[1]), int(version[2])) < _MINIMUM_CARGO:
        raise TestBedError(f"kryoptic needs Rust {needed} or newer; {cargo} is {shown.strip() or 'of unknown version'}")
    return cargo


def _version() -> str:
    found = re.search(r'^version = "=(\S+)"$', (_PROJECT / "Cargo.toml").read_text(), re.MULTILINE)
    assert found is not None, "Cargo.toml does not pin kryoptic-lib"
    return found[1]


def _fingerprint() -> str:
    """Of everything that the module is built from."""
    files = (_PROJECT / "Cargo.toml", _PROJECT / "Cargo.lock", _PROJECT / "src" / "lib.rs")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


def main() -> int:
    """Build the module if it is missing, and print its path."""
    try:
        print(ensure_module())
    except TestBedError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
