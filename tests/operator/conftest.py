# SPDX-License-Identifier: Apache-2.0
"""Namespaces with encrypted secrets in them (tests/operator/tenant.py), and the API server as administrator."""

import contextlib
import secrets
from collections.abc import Callable, Iterator

import pytest

from testbed.controlplane import ControlPlane
from tests.operator.api import Api, Refused, connect
from tests.operator.tenant import Tenant

TenantFactory = Callable[..., Tenant]


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[Api]:
    """The API server as administrator sees it."""
    with connect(control_plane.kubeconfig) as api:
        yield api


@pytest.fixture
def new_tenant(admin: Api) -> Iterator[TenantFactory]:
    """`new_tenant(key="tests", grant=True)`: a tenant with a new namespace, which is deleted afterwards; `hsm` and
    `key_spec` are those of a key that is made.

    It does not start the operator: a test says which one it wants.
    """
    made: list[str] = []

    def make(*, key: str = "tests", grant: bool = True, hsm: str = "default", key_spec: str = "AES_256") -> Tenant:
        name = f"t-{secrets.token_hex(5)}"
        admin("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        made.append(name)
        return Tenant(admin, name, key=key, grant=grant, hsm=hsm, key_spec=key_spec)

    yield make
    for name in made:
        with contextlib.suppress(Refused):  # a test may have deleted it
            admin("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def tenant(new_tenant: TenantFactory) -> Tenant:
    """A tenant that may use the key `tests`."""
    return new_tenant()
