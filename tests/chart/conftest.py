# SPDX-License-Identifier: Apache-2.0
"""Renderings, the installed chart without an operator, and requests as the operator's ServiceAccount."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import REPOSITORY, binaries, users
from testbed.controlplane import ControlPlane
from testbed.installation import Installation
from testbed.waiting import wait_for

CHART = REPOSITORY / "charts" / "strongroom"

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`helm("template", …, values={…})`: the finished process, whatever its exit code."""
    binary = binaries.ensure().helm

    def run(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments, "--kube-version", binaries.kubernetes_version(), "--values", "-"],
            input=json.dumps(values or {}),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """`render({values}, release="strongroom")`: the chart's objects in namespace `strongroom`."""

    def make(values: Mapping[str, Any] | None = None, release: str = "strongroom") -> list[dict[str, Any]]:
        done = helm("template", release, str(CHART), "--namespace", "strongroom", values=values)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return make


@pytest.fixture
def installed(own_operator: Callable[..., Any]) -> Installation:
    """The chart with its default values on the control plane, but no operator and so no crypto API."""
    # Without a backend the APIService would keep every namespace from being deleted.
    operator = own_operator(start=False, values={"apiService": {"enabled": False}})
    installation = operator.installation
    assert isinstance(installation, Installation)
    return installation


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server answered, and the whole text of it."""

    code: int
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Api:
    """Requests with a bearer token, as the operator makes them: no kubectl that reads before it writes."""

    url: str
    token: str
    tls: ssl.SSLContext

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type, "Accept": accept},
        )
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())


@pytest.fixture
def operator_api(control_plane: ControlPlane, installed: Installation) -> Api:
    """The API server as the operator's ServiceAccount sees it, its policy in force."""
    kubeconfig: Path = users.service_account(control_plane, "strongroom", "strongroom")
    content = json.loads(kubeconfig.read_text())
    api = Api(
        url=control_plane.url,
        token=content["users"][0]["user"]["token"],
        tls=ssl.create_default_context(cafile=str(control_plane.ca.certificate)),
    )
    ownerless = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ownerless"}}
    path = "/api/v1/namespaces/default/secrets?dryRun=All"
    wait_for(lambda: api("POST", path, ownerless).code == 422, 30, "the policy for the operator's own writes")
    return api
