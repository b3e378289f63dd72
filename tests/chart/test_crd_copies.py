# SPDX-License-Identifier: Apache-2.0
"""crds/ is the source; the chart carries the same files."""

from pathlib import Path

import pytest
import yaml

from testbed import REPOSITORY

SOURCE = REPOSITORY / "crds"
COPIES = REPOSITORY / "charts" / "strongroom" / "files" / "crds"


def test_chart_carries_exactly_the_files_of_crds() -> None:
    assert sorted(path.name for path in COPIES.iterdir()) == sorted(path.name for path in SOURCE.iterdir())


@pytest.mark.parametrize("source", sorted(SOURCE.iterdir()), ids=lambda path: path.name)
def test_copy_in_the_chart_is_byte_for_byte_the_source(source: Path) -> None:
    assert (COPIES / source.name).read_bytes() == source.read_bytes(), f"cp {source} {COPIES}"


def test_both_kinds_describe_conditions_alike() -> None:
    schemas = []
    for path in SOURCE.iterdir():
        version = yaml.safe_load(path.read_text())["spec"]["versions"][0]
        schemas.append(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"])
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("path", sorted(SOURCE.iterdir()), ids=lambda path: path.name)
def test_spec_has_no_defaults_and_status_starts_unobserved(path: Path) -> None:
    properties = yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert "default" not in str(_keys(properties["spec"]))
    assert properties["status"]["default"] == {"observedGeneration": -1}


def _keys(node: object) -> list[str]:
    """Every mapping key below `node`."""
    if isinstance(node, dict):
        return [*map(str, node), *(key for value in node.values() for key in _keys(value))]
    if isinstance(node, list):
        return [key for value in node for key in _keys(value)]
    return []
