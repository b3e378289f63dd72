# SPDX-License-Identifier: Apache-2.0
"""A person at a shell: the commands that are shown are the commands that are run."""

import subprocess
import sys
from pathlib import Path

from testbed.demo.report import Report, StepFailed
from testbed.kubectl import Kubectl

_TIMEOUT_SECONDS = 60.0


class Shell:
    """bash with the kubeconfig of one person, in a directory; kubectl and strongroom are on PATH."""

    def __init__(self, report: Report, name: str, kubectl: Kubectl, kubectl_binary: Path, directory: Path) -> None:
        self.name = name
        self.kubectl = kubectl
        """For looking without showing."""
        self._report = report
        self._directory = directory
        self.path = f"{kubectl_binary.parent}:{Path(sys.executable).parent}"
        """Where kubectl and strongroom are, as the beginning of PATH."""
        environment = kubectl.environment()
        self._environment = {**environment, "PATH": f"{self.path}:{environment['PATH']}"}

    def run(self, command: str, *, show: bool = True) -> str:
        """Run a command and return its standard output; `show` prints that and what it said besides.

        Raises StepFailed if it fails.
        """
        done = self._run(command)
        if show:
            self._report.output(done.stdout)
        self._report.output(done.stderr)
        if done.returncode:
            raise StepFailed(f"the command ended with {done.returncode}, 0 was expected")
        return done.stdout

    def refused(self, command: str, *expected: str, code: int = 1) -> str:
        """Run a command that must end with `code` and say every one of `expected`. Returns all it said.

        Raises StepFailed if it does not.
        """
        done = self._run(command)
        said = done.stdout + done.stderr
        self._report.output(said, whole=True)
        if done.returncode != code:
            raise StepFailed(f"the command ended with {done.returncode}, {code} was expected")
        for text in expected:
            if text not in said:
                raise StepFailed(f"the message should hold: {text}")
        return said

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        self._report.command(self.name, command)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
