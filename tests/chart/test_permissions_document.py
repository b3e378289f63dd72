# SPDX-License-Identifier: Apache-2.0
"""docs/permissions.md: its manifests apply, and it leaves out no permission, role or policy of the chart."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from testbed import REPOSITORY
from testbed.kubectl import Kubectl

pytestmark = pytest.mark.cluster

DOCUMENT = (REPOSITORY / "docs" / "permissions.md").read_text()


def test_manifests_are_accepted(kubectl: Kubectl) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    objects = [item for block in blocks for item in yaml.safe_load_all(block)]
    assert len(objects) == 2
    kubectl.apply(*objects, options=["--dry-run=server", "--validate=strict"])


def test_grants_are_accepted(kubectl: Kubectl, namespace: str) -> None:
    commands = re.findall(r"^kubectl create rolebinding .*$", DOCUMENT, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        arguments = command.replace("-n shop", f"-n {namespace}").split()[1:]
        kubectl(*arguments, "--dry-run=server")


@pytest.mark.parametrize("kind", ["ClusterRole", "Role", "ValidatingAdmissionPolicy"])
def test_every_role_and_policy_is_explained(kind: str, render: Callable[..., Any]) -> None:
    for item in render():
        if item["kind"] == kind:
            assert f"`{item['metadata']['name']}`" in DOCUMENT


def test_permissions_of_the_operator_are_exactly_those_explained(render: Callable[..., Any]) -> None:
    table = DOCUMENT.partition("## What the operator itself may do")[2].partition("## Admission policies")[0]
    explained: dict[str, set[str]] = {}
    for resources, verbs in re.findall(r"^\| (.*?) \| ([a-z].*?) \|", table, re.MULTILINE):
        for resource in re.findall(r"`([a-z]+)`", resources.partition(":")[0]):
            explained.setdefault(resource, set()).update(re.findall(r"\b[a-z]+\b", re.sub(r"of `.*`", "", verbs)))
    granted: dict[str, set[str]] = {}
    for item in render():
        if item["kind"] in ("ClusterRole", "Role") and item["metadata"]["name"] == "strongroom-operator":
            for rule in item["rules"]:
                for resource in rule["resources"]:
                    granted.setdefault(resource.rpartition("/")[2], set()).update(rule["verbs"])
    assert explained == granted
