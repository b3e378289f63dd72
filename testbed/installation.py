# SPDX-License-Identifier: Apache-2.0
"""The chart in the test bed: everything of it but what needs nodes.

The operator runs as a process of this machine instead (testbed.operator). The API server finds its crypto API through
the chart's Service, turned into one of type ExternalName `localhost`, and the port in the APIService.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testbed import REPOSITORY, TestBedError, binaries
from testbed.controlplane import ControlPlane
from testbed.processes import free_port
from testbed.waiting import wait_for

RELEASE = "strongroom"
NAMESPACE = "strongroom"
CHART = REPOSITORY / "charts" / "strongroom"

# A claim would stay for ever: what releases it on deletion is a controller that only clusters with nodes have.
_FOR_NODES = frozenset({"Deployment", "PersistentVolumeClaim", "PodDisruptionBudget"})
_ESTABLISHED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed in namespace `strongroom`, and what the operator needs to know of it."""

    control_plane: ControlPlane
    values: Mapping[str, Any]
    objects: tuple[Mapping[str, Any], ...]
    """As applied."""
    config: Mapping[str, Any]
    """The chart's own config.yaml, parsed: what the operator would get in a cluster."""
    api_port: int
    """Port of this machine to which the API server sends requests for the crypto API."""

    def uninstall(self) -> None:
        """Delete everything, the APIService first: as long as it has no backend, no namespace can be deleted."""
        _delete(self.control_plane, self.objects)


def render(
    control_plane: ControlPlane, values: Mapping[str, Any] | None = None, chart: Path = CHART
) -> list[dict[str, Any]]:
    """The chart's objects with these values, as `helm template` makes them."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=control_plane.directory) as file:
        json.dump(values or {}, file)
        file.flush()
        text = helm(
            control_plane,
            *("template", RELEASE, str(chart), "--namespace", NAMESPACE, "--no-hooks"),
            *("--kube-version", binaries.kubernetes_version(), "--values", file.name),
        )
    return [document for document in yaml.safe_load_all(text) if document]


def install(
    control_plane: ControlPlane,
    values: Mapping[str, Any] | None = None,
    *,
    previous: Installation | None = None,
    chart: Path = CHART,
) -> Installation:
    """Render the chart and apply it as administrator, CRDs established on return.

    With `previous`, its port is kept, and what only it had is deleted. Raises TestBedError or KubectlError.
    """
    api_port = previous.api_port if previous else free_port()
    rendered = render(control_plane, values, chart)
    objects = tuple(_outside_the_cluster(item, api_port) for item in rendered if item["kind"] not in _FOR_NODES)
    kubectl = control_plane.kubectl
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    kubectl.apply(*objects)
    if previous:
        kept = {_identity(item) for item in objects}
        _delete(control_plane, [item for item in previous.objects if _identity(item) not in kept])
    for item in objects:
        if item["kind"] == "CustomResourceDefinition":
            _wait_established(control_plane, item["metadata"]["name"])
    return Installation(control_plane, values or {}, objects, _config(rendered), api_port)


def helm(control_plane: ControlPlane, *arguments: str) -> str:
    """Run helm and return its output. Raises TestBedError with what it said."""
    done = subprocess.run(
        [control_plane.binaries.helm, *arguments],
        env=control_plane.kubectl.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TestBedError(f"helm {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _outside_the_cluster(item: dict[str, Any], api_port: int) -> dict[str, Any]:
    if item["kind"] == "Service":
        return item | {"spec": {"type": "ExternalName", "externalName": "localhost"}}
    if item["kind"] == "APIService":
        spec = item["spec"]
        return item | {"spec": spec | {"service": spec["service"] | {"port": api_port}}}
    return item


def _config(rendered: list[dict[str, Any]]) -> Mapping[str, Any]:
    for item in rendered:
        if item["kind"] == "ConfigMap" and "config.yaml" in item.get("data", {}):
            config = yaml.safe_load(item["data"]["config.yaml"])
            assert isinstance(config, dict)
            return config
    raise TestBedError("the chart renders no ConfigMap with a key config.yaml")


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str, str]:
    metadata = item["metadata"]
    return (item["apiVersion"].split("/")[0], item["kind"], metadata.get("namespace", ""), metadata["name"])


def _delete(control_plane: ControlPlane, objects: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(objects, key=lambda item: item["kind"] != "APIService")
    if ordered:
        control_plane.kubectl(
            *("delete", "--ignore-not-found", "--wait=false", "-f", "-"),
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": ordered}),
        )


def _wait_established(control_plane: ControlPlane, name: str) -> None:
    def established() -> bool:
        conditions = control_plane.kubectl.json("get", "crd", name).get("status", {}).get("conditions", [])
        return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)

    wait_for(established, _ESTABLISHED_SECONDS, f"CustomResourceDefinition {name} to be established")
