# SPDX-License-Identifier: Apache-2.0
"""Runs kubectl as one user."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class KubectlError(Exception):
    """kubectl ended with an error: `stderr` is what it said. Standard input, which may hold secrets, is not shown."""

    def __init__(self, arguments: Sequence[str], returncode: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)} ended with {returncode}: {stderr.strip()}")
        self.returncode = returncode
        self.stderr = stderr


class Kubectl:
    """kubectl with the permissions of one kubeconfig. Nothing of the home directory is read or written."""

    def __init__(self, binary: Path, kubeconfig: Path, home: Path) -> None:
        self._binary = binary
        self._home = home
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str, stdin: str | bytes = b"", timeout: float = 60.0) -> str:
        """Run `kubectl ARGUMENTS` and return its standard output. Raises KubectlError."""
        done = subprocess.run(
            [self._binary, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            env=self.environment(),
            check=False,
        )
        if done.returncode:
            raise KubectlError(arguments, done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout.decode()

    def json(self, *arguments: str, stdin: str | bytes = b"") -> Any:
        """Run `kubectl ARGUMENTS -o json` and return the parsed output."""
        return json.loads(self(*arguments, "-o", "json", stdin=stdin))

    def apply(self, *objects: Mapping[str, Any], namespace: str | None = None, options: Sequence[str] = ()) -> str:
        """Apply objects server-side, taking over fields that someone else set."""
        where = ("--namespace", namespace) if namespace else ()
        return self(
            *("apply", "--server-side", "--force-conflicts", *where, *options, "-f", "-"),
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def with_kubeconfig(self, kubeconfig: Path) -> "Kubectl":
        """The same kubectl as another user."""
        return Kubectl(self._binary, kubeconfig, self._home)

    def environment(self) -> dict[str, str]:
        """Environment of the process, KUBECONFIG included: for other programs that act as this user."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._home),
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self._home / "kubectl-cache"),
            "KUBERC": "off",
            "LANG": "C.UTF-8",
        }
