# SPDX-License-Identifier: Apache-2.0
"""The values and their schema: a mistake is refused with its place, and nothing is undocumented."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from testbed import REPOSITORY

CHART = REPOSITORY / "charts" / "strongroom"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
HSM = {"name": "a", "module": "/m.so", "tokenLabel": "t", "pinSecret": {"name": "s", "key": "k"}}


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"imagee": {}}, "additional properties 'imagee' not allowed"),
        ({"image": {"tagg": "1"}}, "at '/image': additional properties 'tagg' not allowed"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
        ({"replicaCount": 2}, "additional properties 'replicaCount' not allowed"),
        ({"softhsm": {"module": "libsofthsm2.so"}}, "at '/softhsm/module'"),
        ({"softhsm": {"pin": "1234"}}, "additional properties 'pin' not allowed"),
        ({"softhsm": {"enabled": False}}, "no HSM: list one under hsms"),
        ({"hsms": [{"name": "a"}]}, "missing properties 'module', 'tokenLabel'"),
        ({"hsms": [HSM | {"pin": "1234"}]}, "additional properties 'pin' not allowed"),
        ({"hsms": [HSM | {"name": "default"}]}, 'two HSMs are named "default"'),
        ({"hsms": [HSM, HSM]}, 'two HSMs are named "a"'),
        ({"hsms": [HSM | {"sessions": 0}]}, "at '/hsms/0/sessions'"),
        ({"secrets": {"maxPlaintextBytes": 4097}}, "at '/secrets/maxPlaintextBytes'"),
        ({"apiService": {"insecureSkipTLSVerify": True}}, "not allowed"),
        ({"logLevel": "TRACE"}, "at '/logLevel'"),
        ({"secrets": {"driftWatch": False}, "admissionPolicy": {"enabled": False}}, "at '/admissionPolicy/enabled'"),
        (
            {"secrets": {"driftWatch": False}, "admissionPolicy": {"restrictOperator": False}},
            "at '/admissionPolicy/restrictOperator'",
        ),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed"),
    ],
)
def test_mistake_is_refused_with_its_place(
    values: dict[str, Any], message: str, helm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = helm("template", "strongroom", str(CHART), values=values)
    assert done.returncode != 0
    assert message in done.stderr


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    assert set(_paths(VALUES)) == set(_schema_paths(SCHEMA)) - {"global"}


def test_nothing_beside_the_schema_is_allowed() -> None:
    def closed(node: Any) -> Iterator[bool]:
        if isinstance(node, dict):
            if "properties" in node and node.get("type") == "object":
                yield node.get("additionalProperties") is False
            for child in node.values():
                yield from closed(child)

    assert all(closed(SCHEMA))


def test_chart_version_is_the_programs_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"]
    assert f'version = "{chart["version"]}"' in (REPOSITORY / "pyproject.toml").read_text()


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Path of each value that the schema describes; what is passed on to Kubernetes as it is counts as one."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        yield path
        if isinstance(value, dict) and path not in ("podSecurityContext", "securityContext", "resources"):
            yield from _paths(value, f"{path}.")


def _schema_paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from _schema_paths(value, f"{prefix}{name}.")
