# SPDX-License-Identifier: Apache-2.0
"""A release's life with Helm itself: install, upgrade, uninstall."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import REPOSITORY
from testbed.controlplane import ControlPlane
from testbed.installation import helm
from testbed.kubectl import KubectlError

pytestmark = pytest.mark.cluster

CHART = str(REPOSITORY / "charts" / "strongroom")
NAMESPACE = ("--namespace", "strongroom-system")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster that has never seen Strongroom: what the test bed applies does not belong to a release."""
    with ControlPlane(tmp_path_factory.mktemp("helm-release")) as control_plane:
        yield control_plane


def test_release_is_installed_upgraded_and_uninstalled(cluster: ControlPlane, tmp_path: Path) -> None:
    kubectl = cluster.kubectl
    said = helm(cluster, "install", "strongroom", CHART, *NAMESPACE, "--create-namespace")
    assert "NOT AN HSM" in said
    assert "create secret generic strongroom-pin -n strongroom-system --from-literal=pin=" in said
    assert '"kind":"CustomerMasterKey","metadata":{"name":"first"},"spec":{"hsm":"default"' in said
    kubectl("get", "deployment", "strongroom", *NAMESPACE)

    # As the operator does once it serves; an upgrade must not take it away.
    patch = ("patch", "apiservice", "v1alpha1.crypto.strongroom.dev", "--type=merge", "--patch")
    kubectl(*patch, '{"spec":{"caBundle":"Q0E="}}')
    before = kubectl.json("get", "configmap", *NAMESPACE, "-l", "app.kubernetes.io/part-of=strongroom")["items"]
    helm(cluster, "upgrade", "strongroom", CHART, *NAMESPACE, "--set", "workers=8")
    after = kubectl.json("get", "configmap", *NAMESPACE, "-l", "app.kubernetes.io/part-of=strongroom")["items"]
    assert len(before) == len(after) == 1
    assert "workers: 8" in after[0]["data"]["config.yaml"]
    assert kubectl.json("get", "apiservice", "v1alpha1.crypto.strongroom.dev")["spec"]["caBundle"] == "Q0E="

    helm(cluster, "rollback", "strongroom", "1", *NAMESPACE)
    helm(cluster, "uninstall", "strongroom", *NAMESPACE)
    kubectl("get", "crd", "customermasterkeys.kms.strongroom.dev", "encryptedsecrets.kms.strongroom.dev")
    kubectl("get", "persistentvolumeclaim", "strongroom-softhsm", *NAMESPACE)
    with pytest.raises(KubectlError, match="NotFound"):
        kubectl("get", "apiservice", "v1alpha1.crypto.strongroom.dev")

    helm(cluster, "install", "strongroom", CHART, *NAMESPACE)
    helm(cluster, "uninstall", "strongroom", *NAMESPACE)


def test_commands_of_the_notes_work(cluster: ControlPlane) -> None:
    said = helm(cluster, "install", "notes", CHART, *NAMESPACE, "--create-namespace", "--take-ownership")
    kubectl = cluster.kubectl
    key = said.partition("echo '")[2].partition("' |")[0]
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=key)
    command = next(line for line in said.splitlines() if "create rolebinding" in line)
    kubectl(*command.split()[1:], "--dry-run=server")
    kubectl("get", "clusterrole", "strongroom-key-user")
    helm(cluster, "uninstall", "notes", *NAMESPACE)
