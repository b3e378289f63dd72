# SPDX-License-Identifier: Apache-2.0
"""Deleting an EncryptedSecret, in each of Kubernetes' ways, is not held up by the policies."""

import functools
import json
from typing import Any

import pytest

from testbed.kubectl import Kubectl, KubectlError
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster

GONE_SECONDS = 60


@pytest.fixture
def pair(operator_api: Any, kubectl: Kubectl, namespace: str) -> str:
    """Name of an EncryptedSecret and of the Secret that the operator made from it."""
    item = {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {"keyRef": {"name": "prod"}, "scope": "Strict", "encryptedData": {"a": "U1IxAV8A"}},
    }
    created = kubectl.json("create", "-f", "-", stdin=json.dumps(item))
    owner = {key: created[key] for key in ("apiVersion", "kind")} | {"name": "db", "uid": created["metadata"]["uid"]}
    metadata = {"name": "db", "ownerReferences": [owner | {"controller": True}]}
    answer = operator_api("POST", f"/api/v1/namespaces/{namespace}/secrets", {"metadata": metadata})
    assert answer.code == 201, answer.text
    return "db"


def gone(kubectl: Kubectl, kind: str, name: str, namespace: str) -> bool:
    try:
        kubectl("get", kind, name, "-n", namespace)
    except KubectlError as error:
        return "NotFound" in error.stderr
    return False


@pytest.mark.parametrize("cascade", ["foreground", "background"])
def test_secret_goes_with_its_encrypted_secret(cascade: str, pair: str, kubectl: Kubectl, namespace: str) -> None:
    kubectl("delete", "encryptedsecret", pair, "-n", namespace, f"--cascade={cascade}", "--wait=false")
    for kind in ("encryptedsecret", "secret"):
        wait_for(functools.partial(gone, kubectl, kind, pair, namespace), GONE_SECONDS, f"the {kind} to be gone")


def test_orphaned_secret_stays_and_belongs_to_no_one(pair: str, kubectl: Kubectl, namespace: str) -> None:
    kubectl("delete", "encryptedsecret", pair, "-n", namespace, "--cascade=orphan", "--wait=false")
    wait_for(lambda: gone(kubectl, "encryptedsecret", pair, namespace), GONE_SECONDS, "the EncryptedSecret to be gone")
    assert "ownerReferences" not in kubectl.json("get", "secret", pair, "-n", namespace)["metadata"]


def test_namespace_goes_with_everything_in_it(pair: str, kubectl: Kubectl, namespace: str) -> None:
    kubectl("delete", "namespace", namespace, "--wait=false")
    wait_for(lambda: gone(kubectl, "namespace", namespace, namespace), GONE_SECONDS, "the namespace to be gone")
