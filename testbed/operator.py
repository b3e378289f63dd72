# SPDX-License-Identifier: Apache-2.0
"""The operator as a process of this machine, with the permissions of the chart's ServiceAccount and no others."""

import json
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from testbed import users
from testbed.installation import NAMESPACE, Installation
from testbed.kubectl import KubectlError
from testbed.metrics import Metrics
from testbed.pkcs11token import Pkcs11Token
from testbed.processes import ManagedProcess, free_port

_SERVICE_ACCOUNT = "strongroom"
_CRYPTO_API = "/apis/crypto.strongroom.dev/v1alpha1"
_READY_SECONDS = 60.0


class OperatorProcess:
    """`python -m strongroom.app` with the chart's own configuration, its tokens and addresses replaced.

    `overrides` is merged into that configuration, section by section (names as in the file: `relistSeconds`).
    `server` replaces the API server's address, for a fault proxy in between. Files go to a new directory below the
    control plane's. Not thread-safe.
    """

    def __init__(
        self,
        installation: Installation,
        tokens: Sequence[Pkcs11Token],
        *,
        overrides: Mapping[str, Any] | None = None,
        server: str | None = None,
    ) -> None:
        control_plane = installation.control_plane
        self.installation = installation
        self.directory = control_plane.directory / f"operator-{secrets.token_hex(4)}"
        self.directory.mkdir(mode=0o700)
        self.metrics_port = free_port()
        self.config = _merge(
            installation.config,
            {
                "hsms": [token.config("default" if n == 0 else f"hsm-{n}") for n, token in enumerate(tokens)],
                "api": {"address": "127.0.0.1", "port": installation.api_port},
                "metricsAddress": "127.0.0.1",
                "metricsPort": self.metrics_port,
            },
        )
        self.config = _merge(self.config, overrides or {})
        """The configuration as written to `config_file`."""
        self.config_file = self.directory / "config.yaml"
        self.config_file.write_text(yaml.safe_dump(self.config))
        self.kubeconfig = users.service_account(control_plane, NAMESPACE, _SERVICE_ACCOUNT, server=server)
        self.audit_file = self.directory / "audit.jsonl"
        self.log_file = self.directory / "operator.log"
        self._process = ManagedProcess(
            "operator",
            [sys.executable, "-m", "strongroom.app", "--config", self.config_file],
            log=self.log_file,
            stdout=self.audit_file,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.directory),
                "KUBECONFIG": str(self.kubeconfig),
                "LANG": "C.UTF-8",
                "POD_UID": self.directory.name,
            },
            cwd=self.directory,
        )

    @property
    def pid(self) -> int:
        """Process id of the operator itself; the HSM workers are its children."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.running

    @property
    def returncode(self) -> int | None:
        """Exit status of the last process; None while it runs."""
        return self._process.returncode

    def start(self, *, wait: bool = True, timeout: float = _READY_SECONDS) -> None:
        """Start, also again after `stop()` or `kill()`: same configuration, same files, appended to.

        Returns as `wait_ready` does, or at once without `wait`.
        """
        self._process.start()
        if wait:
            self.wait_ready(timeout)

    def wait_ready(self, timeout: float = _READY_SECONDS) -> None:
        """Return when /readyz answers 200, and the API server has noticed that the crypto API is there.

        Raises TestBedError with the end of the log.
        """
        self._process.wait_ready(self.ready, timeout)
        if self.config["api"].get("enabled", True):
            self._process.wait_ready(self._api_reachable, timeout)

    def ready(self) -> bool:
        """Whether /readyz answers 200 now. Raises OSError if nobody listens."""
        try:
            return bool(self._get("/readyz"))
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, as Kubernetes stops a pod; returns the exit status (-9 if it had to be killed after `timeout`)."""
        return self._process.stop(timeout)

    def kill(self) -> int:
        """SIGKILL to it and its HSM workers, as a crash of the node does."""
        return self._process.kill()

    def audit_lines(self) -> list[dict[str, Any]]:
        """The audit records so far, over all starts, oldest first."""
        if not self.audit_file.exists():
            return []
        # The last line may be half written.
        return [
            json.loads(line) for line in self.audit_file.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def log_text(self) -> str:
        """The operator's own log so far, over all starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def metrics(self) -> Metrics:
        """The operator's metrics as of now."""
        return Metrics.parse(self._get("/metrics"))

    def _api_reachable(self) -> bool:
        """Whether a request gets through to the crypto API: the API server looks for it only every few seconds."""
        try:
            self.installation.control_plane.kubectl("get", "--raw", _CRYPTO_API)
        except KubectlError:
            return False
        return True

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body.decode() or "ok"


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
