# SPDX-License-Identifier: Apache-2.0
"""The README's tour, run as it stands, and every manifest in the documents, on the real control plane."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from strongroom.errors import Reason
from testbed import REPOSITORY, binaries
from testbed.controlplane import ControlPlane
from testbed.installation import helm, render
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.waiting import wait_for
from tests.docs.documents import DOCUMENTS, blocks, commands, name, read, section

pytestmark = pytest.mark.cluster

_NAMESPACE = "shop"
_LOGS = "kubectl logs -n strongroom deployment/strongroom -c operator"
"""The one command that needs a node: the test reads the operator's standard output where the process writes it."""
_TIMEOUT_SECONDS = 90.0


@pytest.fixture
def directory(kubectl: Kubectl, operator: OperatorProcess, tmp_path: Path) -> Iterator[Path]:
    """A clone as far as the tour goes; its namespace and key are gone before and after."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    _remove(kubectl)
    yield tmp_path
    _remove(kubectl)


def _remove(kubectl: Kubectl) -> None:
    kubectl("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--wait=false")
    kubectl("delete", "cmk", "prod", "--ignore-not-found")
    field = f"--field-selector=metadata.name={_NAMESPACE}"
    wait_for(lambda: not kubectl.json("get", "namespaces", field)["items"], 60, f"namespace {_NAMESPACE} to be gone")


def _tour() -> list[str]:
    return [command for block in blocks(section(read("README.md"), "Tour"), "sh") for command in commands(block)]


def test_tour_does_what_it_says(
    directory: Path, control_plane: ControlPlane, kubectl: Kubectl, operator: OperatorProcess
) -> None:
    environment = kubectl.environment()
    places = (str(control_plane.binaries.kubectl.parent), str(Path(sys.executable).parent), environment["PATH"])
    environment["PATH"] = os.pathsep.join(places)
    refused = 0
    for command in _tour():
        expected = command.rpartition("# ")[2] if "  # " in command else ""
        runnable = command.replace(_LOGS, f"cat {shlex.quote(str(operator.audit_file))}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", runnable],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        if expected:
            assert expected in Reason.__members__.values()
            assert done.returncode != 0, f"{command}\nshould be refused"
            assert expected in said, f"{command}\nshould say {expected}:\n{said}"
            refused += 1
        else:
            assert done.returncode == 0, f"{command}\n{said}"
        if _LOGS in command:
            record = json.loads(done.stdout)
            assert (record["object"]["namespace"], record["object"]["name"]) == (_NAMESPACE, "db")
    assert refused == 3


def test_manifests_are_accepted(directory: Path, kubectl: Kubectl) -> None:
    kubectl("create", "namespace", _NAMESPACE)
    seen = []
    for path in DOCUMENTS:
        for block in blocks(path.read_text(), "yaml"):
            for item in yaml.safe_load_all(block):
                if isinstance(item, dict) and str(item.get("apiVersion", "")).startswith("kms.strongroom.dev/"):
                    kubectl.apply(item, options=["--dry-run=server", "--validate=strict"])
                    seen.append(name(path))
    assert "docs/architecture.md" in seen


def test_chart_takes_the_values_for_a_real_module(control_plane: ControlPlane) -> None:
    [values] = blocks(section(read("README.md"), "Install"), "yaml")
    objects = render(control_plane, yaml.safe_load(values))
    [config] = [item["data"]["config.yaml"] for item in objects if "config.yaml" in item.get("data", {})]
    [hsm] = yaml.safe_load(config)["hsms"]
    assert (hsm["name"], hsm["sessions"]) == ("default", 16)
    assert not [item for item in objects if item["kind"] == "PersistentVolumeClaim"]


def test_chart_takes_the_options_of_the_first_try(control_plane: ControlPlane) -> None:
    [block] = blocks(section(read("README.md"), "Install"), "sh")
    [install] = [command for command in commands(block) if command.startswith("helm ")]
    arguments = shlex.split(install.replace("charts/strongroom", str(REPOSITORY / "charts" / "strongroom")))[2:]
    version = ("--kube-version", binaries.kubernetes_version())
    assert "registry.example/strongroom:" in helm(control_plane, "template", *arguments, *version)
