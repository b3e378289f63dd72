# SPDX-License-Identifier: Apache-2.0
"""A token with the shim in front of its module."""

from pathlib import Path
from typing import Any

from testbed.pkcs11token import Pkcs11Token
from testbed.shim import Shim


class ShimmedToken:
    """See `Pkcs11Token`. What it does wrong is set in `shim`, also while it is in use."""

    def __init__(self, behind: Pkcs11Token, directory: Path) -> None:
        """`directory` does not exist yet; it is the shim's."""
        directory.mkdir(mode=0o700)
        self.shim = Shim(directory, behind.module)
        self.module = self.shim.module
        self.label = behind.label
        self.pin_file = behind.pin_file
        self.environment = behind.environment | self.shim.environment
        self.tokens = behind.tokens
        self._behind = behind

    def config(self, name: str = "default") -> dict[str, Any]:
        """This token as an entry of `hsms` in the operator's configuration."""
        return self.shim.config(self._behind.config(name))
