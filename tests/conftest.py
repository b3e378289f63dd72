# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that use the real thing. What they hand out is documented where it is defined, in `testbed/`.

One control plane, one token and one operator a session, each started when a test first asks for it; one namespace a
test. CRDs are cluster-wide, so only one operator runs at a time: a test that needs another one asks for `own_operator`.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from testbed import users
from testbed.controlplane import ControlPlane
from testbed.faultproxy import FaultProxy
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.operatorslot import OperatorSlot, OwnOperator
from testbed.softhsm import SoftHsmToken


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tokens", default="softhsm", help="tokens of the conformance suite: softhsm,kryoptic,nss")


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
def _operator_slot(control_plane: ControlPlane, token: SoftHsmToken) -> Iterator[OperatorSlot]:
    slot = OperatorSlot(control_plane, token)
    yield slot
    slot.stop()


@pytest.fixture
def operator(_operator_slot: OperatorSlot) -> OperatorProcess:
    """The session's operator, ready, with the chart's own values; started again if a test before has ended it."""
    return _operator_slot.shared()


@pytest.fixture
def own_operator(_operator_slot: OperatorSlot) -> Iterator[OwnOperator]:
    """Factory of an operator of the test's own, stopped afterwards. A second call replaces the first operator."""
    yield _operator_slot.own
    _operator_slot.stop_own()
