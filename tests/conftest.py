# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that use the real thing. What they hand out is documented where it is defined, in `testbed/`.

One control plane, one token and one operator a session, each started when a test first asks for it; one namespace a
test. CRDs are cluster-wide, so only one operator runs at a time: a test that needs another one asks for `own_operator`.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from testbed import users
from testbed.controlplane import ControlPlane
from testbed.faultproxy import FaultProxy
from testbed.installation import Installation, install
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.softhsm import SoftHsmToken


class OwnOperator(Protocol):
    """What the fixture `own_operator` gives: a factory of operators of the test's own."""

    def __call__(
        self,
        *,
        tokens: Sequence[SoftHsmToken] | None = None,
        values: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        server: str | None = None,
        start: bool = True,
    ) -> OperatorProcess:
        """Stop whichever operator runs, install the chart with `values`, and start a new one (testbed.operator)."""
        ...


class _OperatorSlot:
    """The place of the one operator. Who needs it in a certain shape asks for that; nobody restores anything."""

    def __init__(self, control_plane: ControlPlane, token: SoftHsmToken) -> None:
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
        tokens: Sequence[SoftHsmToken] | None = None,
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
        if self._own is not None:
            self._own.stop()
            self._own = None

    def stop(self) -> None:
        self.stop_own()
        if self._shared is not None:
            self._shared.stop()

    def _install(self, values: Mapping[str, Any]) -> Installation:
        """Needs every operator stopped. The shared one is made anew: its ServiceAccount may have been, too."""
        self._installation = install(self._control_plane, values, previous=self._installation)
        self._shared = None
        return self._installation


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The session's control plane. A test that stops the API server starts it again."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as started:
        yield started


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> SoftHsmToken:
    """The session's PKCS#11 token. A test that breaks a token makes its own: `new_token`."""
    return SoftHsmToken(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def new_token(tmp_path: Path) -> SoftHsmToken:
    """A PKCS#11 token of the test's own."""
    return SoftHsmToken(tmp_path / "softhsm", label=f"own-{secrets.token_hex(4)}")


@pytest.fixture
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """kubectl as administrator; `kubectl.with_kubeconfig(path)` is kubectl as someone else."""
    return control_plane.kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """Name of a new namespace. It is deleted afterwards; nobody waits for that."""
    name = f"t-{secrets.token_hex(5)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def user(control_plane: ControlPlane) -> Callable[..., Path]:
    """`user("alice", ["developers"])`: kubeconfig of a certificate user with no permissions but those bound to it."""

    def make(name: str, groups: Sequence[str] = ()) -> Path:
        return users.certificate_user(control_plane, name, groups)

    return make


@pytest.fixture
def fault_proxy(control_plane: ControlPlane) -> Iterator[FaultProxy]:
    """A proxy of the test's own in front of the API server: `own_operator(server=fault_proxy.url)`."""
    with FaultProxy(control_plane) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def _operator_slot(control_plane: ControlPlane, token: SoftHsmToken) -> Iterator[_OperatorSlot]:
    slot = _OperatorSlot(control_plane, token)
    yield slot
    slot.stop()


@pytest.fixture
def operator(_operator_slot: _OperatorSlot) -> OperatorProcess:
    """The session's operator, ready, with the chart's own values; started again if a test before has ended it."""
    return _operator_slot.shared()


@pytest.fixture
def own_operator(_operator_slot: _OperatorSlot) -> Iterator[OwnOperator]:
    """Factory of an operator of the test's own, stopped afterwards. A second call replaces the first operator."""
    yield _operator_slot.own
    _operator_slot.stop_own()
