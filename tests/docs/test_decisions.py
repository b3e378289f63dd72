# SPDX-License-Identifier: Apache-2.0
"""Decisions have the same four parts, and what they rest on still holds."""

import re
import tomllib
from pathlib import Path

import pytest

from testbed import REPOSITORY
from testbed.kubectl import Kubectl, KubectlError
from testbed.operator import OperatorProcess
from tests.docs.documents import name, read, section

DECISIONS = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))


def test_numbers_have_no_gaps() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=name)
def test_decision_has_its_four_parts(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^# (\d{4}): ", text) == [path.name[:4]]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    requirements = [
        *project["project"]["dependencies"],
        *(item for extra in project["project"]["optional-dependencies"].values() for item in extra),
        *(item for group in project["dependency-groups"].values() for item in group),
    ]
    wanted = {re.split(r"[<>=]", requirement)[0] for requirement in requirements}
    lines = section(read("docs/decisions/0002-dependencies.md"), "Decision").splitlines()
    explained = {found for line in lines for found in re.findall(r"`([^`]+)`", line.partition(" | ")[0])}
    assert explained - {"requirements/"} == wanted


def test_no_requirement_is_without_hash_or_names_a_registry() -> None:
    for path in (REPOSITORY / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert "--index-url" not in text
        pinned = re.findall(r"^[a-zA-Z0-9._-]+==.*$", text, re.MULTILINE)
        assert pinned
        assert all(line.rstrip().endswith("\\") for line in pinned)


@pytest.mark.cluster
def test_kubectl_refuses_to_create_a_role_for_use(kubectl: Kubectl, namespace: str, operator: OperatorProcess) -> None:
    with pytest.raises(KubectlError, match="use"):
        kubectl("create", "role", "use-prod", "-n", namespace, "--verb=use", "--resource=keys.crypto.strongroom.dev")
