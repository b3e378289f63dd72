# SPDX-License-Identifier: Apache-2.0
"""Deleting an EncryptedSecret ends as asked, with the operator running and all admission policies on."""

import contextlib
import time

import pytest

from testbed.waiting import wait_for
from tests.operator.api import Refused
from tests.operator.tenant import GONE_SECONDS, Tenant, controller

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

VALUES = {"password": b"secret"}
HELD = "example.com/held"


def delete(tenant: Tenant, name: str, policy: str = "Background") -> None:
    tenant.api("DELETE", tenant.path(name), {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy})


def wait_gone(tenant: Tenant, path: str) -> None:
    wait_for(lambda: tenant.api.find(path) is None, GONE_SECONDS, f"{path} to be gone")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_secret_goes_with_its_object(tenant: Tenant, policy: str) -> None:
    tenant.deliver("db", VALUES)
    delete(tenant, "db", policy)
    wait_gone(tenant, tenant.path("db"))
    wait_gone(tenant, tenant.secret_path("db"))


def test_orphaned_secret_stays_as_it_is(tenant: Tenant) -> None:
    before = tenant.deliver("db", VALUES)
    delete(tenant, "db", "Orphan")
    wait_gone(tenant, tenant.path("db"))
    after = tenant.existing_secret("db")
    assert (after["data"], after["metadata"]["uid"]) == (before["data"], before["metadata"]["uid"])
    assert "ownerReferences" not in after["metadata"]


def test_orphaned_secret_is_foreign_to_an_object_that_comes_later(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    delete(tenant, "db", "Orphan")
    wait_gone(tenant, tenant.path("db"))
    before = tenant.secret("db")
    tenant.seal("db", {"password": b"new"})
    tenant.wait_reason("db", "TargetNotOwned")
    assert tenant.secret("db") == before


@pytest.mark.parametrize("harm", ["deleted", "edited"])
def test_nothing_is_healed_while_its_object_is_being_deleted(tenant: Tenant, harm: str) -> None:
    tenant.deliver("db", VALUES)
    tenant.deliver("witness", VALUES)
    tenant.api.patch(tenant.path("db"), {"metadata": {"finalizers": [HELD]}})
    delete(tenant, "db")
    for name in ("db", "witness"):
        if harm == "deleted":
            tenant.api("DELETE", tenant.secret_path(name))
        else:
            tenant.api.patch(tenant.secret_path(name), {"data": {"password": "eA=="}})
    # The witness was harmed later; when it is whole again, db has been looked at.
    tenant.wait_values("witness", VALUES)
    assert tenant.values("db") == (None if harm == "deleted" else {"password": b"x"})
    assert tenant.get("db")["metadata"]["deletionTimestamp"]
    tenant.api.patch(tenant.path("db"), {"metadata": {"finalizers": None}})
    wait_gone(tenant, tenant.path("db"))
    wait_gone(tenant, tenant.secret_path("db"))


def test_object_that_is_being_deleted_is_not_written_for(tenant: Tenant) -> None:
    """Its spec changes while a finalizer holds it."""
    before = tenant.deliver("db", VALUES)
    tenant.api.patch(tenant.path("db"), {"metadata": {"finalizers": [HELD]}})
    delete(tenant, "db")
    tenant.api.patch(tenant.path("db"), {"spec": {"encryptedData": tenant.encrypt("db", {"password": b"new"})}})
    tenant.deliver("witness", VALUES)
    assert tenant.secret("db") == before
    tenant.api.patch(tenant.path("db"), {"metadata": {"finalizers": None}})
    wait_gone(tenant, tenant.path("db"))


def test_deleted_and_created_again_under_the_same_name_is_a_new_start(tenant: Tenant) -> None:
    first = tenant.deliver("db", VALUES)
    delete(tenant, "db")
    wait_gone(tenant, tenant.path("db"))
    tenant.seal("db", {"password": b"second"})
    tenant.wait_ready("db")
    tenant.wait_values("db", {"password": b"second"})
    assert controller(tenant.existing_secret("db")) != controller(first)


def test_fight_over_a_secret_is_not_held_against_its_successor(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    for _ in range(3):  # repaired at once, after 1 s, after 2 s; the next time it would take 4 s
        tenant.api.patch(tenant.secret_path("db"), {"data": {"password": "eA=="}})
        tenant.wait_values("db", VALUES)
    delete(tenant, "db")
    wait_gone(tenant, tenant.path("db"))
    with contextlib.suppress(Refused):  # the garbage collector may have been faster
        tenant.api("DELETE", tenant.secret_path("db"))
    tenant.deliver("db", VALUES)
    tenant.api.patch(tenant.secret_path("db"), {"data": {"password": "eA=="}})
    spoilt = time.monotonic()
    tenant.wait_values("db", VALUES)
    assert time.monotonic() - spoilt < 2.0


def test_namespace_goes_with_everything_in_it(tenant: Tenant) -> None:
    tenant.deliver("db", VALUES)
    tenant.apply("bad", tenant.encrypt("other", VALUES))
    tenant.wait_reason("bad", "InvalidCiphertext")
    path = f"/api/v1/namespaces/{tenant.namespace}"
    tenant.api("DELETE", path)
    wait_gone(tenant, path)
