# SPDX-License-Identifier: Apache-2.0
"""Which operator runs: CRDs are cluster-wide, so a control plane has room for one at a time."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from testbed.controlplane import ControlPlane
from testbed.installation import Installation, install
from testbed.operator import OperatorProcess
from testbed.pkcs11token import Pkcs11Token


class OwnOperator(Protocol):
    """Type of `OperatorSlot.own`."""

    def __call__(
        self,
        *,
        tokens: Sequence[Pkcs11Token] | None = None,
        values: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        server: str | None = None,
        start: bool = True,
    ) -> OperatorProcess:
        """Stop whichever operator runs, install the chart with `values`, and start a new one (testbed.operator)."""
        ...


class OperatorSlot:
    """The place of the one operator. Who needs it in a certain shape asks for that; nobody restores anything."""

    def __init__(self, control_plane: ControlPlane, token: Pkcs11Token) -> None:
        self._control_plane = control_plane
        self._token = token
        self._installation: Installation | None = None
        self._shared: OperatorProcess | None = None
        self._own: OperatorProcess | None = None

    def shared(self) -> OperatorProcess:
        """The session's operator, running, with the chart's own values."""
        self.stop_own()
        if self._installation is None or self._installation.values:
            self._install({})
        if self._shared is None:
            assert self._installation is not None
            self._shared = OperatorProcess(self._installation, [self._token])
        if not self._shared.running:
            self._shared.start()
        return self._shared

    def own(
        self,
        *,
        tokens: Sequence[Pkcs11Token] | None = None,
        values: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        server: str | None = None,
        start: bool = True,
    ) -> OperatorProcess:
        """See OwnOperator."""
        self.stop()
        installation = self._installation
        if installation is None or installation.values != (values or {}):
            installation = self._install(values or {})
        self._own = OperatorProcess(installation, tokens or [self._token], overrides=overrides, server=server)
        if start:
            self._own.start()
        return self._own

    def stop_own(self) -> None:
        """Stop the operator that `own` started last, if any."""
        if self._own is not None:
            self._own.stop()
            self._own = None

    def stop(self) -> None:
        """Stop whichever operator runs."""
        self.stop_own()
        if self._shared is not None:
            self._shared.stop()

    def _install(self, values: Mapping[str, Any]) -> Installation:
        """Needs every operator stopped. The shared one is made anew: its ServiceAccount may have been, too."""
        self._installation = install(self._control_plane, values, previous=self._installation)
        self._shared = None
        return self._installation
