# SPDX-License-Identifier: Apache-2.0
"""Steps that start what is needed, and create the key, the people and their permissions."""

import os
import shlex
import sys

from testbed import REPOSITORY
from testbed.controlplane import ControlPlane
from testbed.demo.report import expect
from testbed.demo.shell import Shell
from testbed.demo.stage import Stage
from testbed.installation import NAMESPACE, install
from testbed.kubectl import KubectlError
from testbed.operator import OperatorProcess
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for

_AVAILABLE_SECONDS = 60.0
_API_SERVICE = "v1alpha1.crypto.strongroom.dev"


def control_plane(stage: Stage) -> None:
    """etcd, kube-apiserver and kube-controller-manager, on loopback."""
    stage.control_plane = ControlPlane()
    stage.on_close(stage.control_plane.stop)
    stage.control_plane.start()
    kubectl = stage.control_plane.kubectl
    stage.admin = Shell(stage.report, "admin", kubectl, stage.control_plane.binaries.kubectl, stage.workspace)
    for process in stage.control_plane.processes():
        stage.report.note(f"{process.name} runs, pid {process.pid}")
    stage.admin.run("kubectl version")


def token(stage: Stage) -> None:
    """A PKCS#11 token of the demonstration's own. SoftHSM is no HSM, but speaks the same interface."""
    stage.token = SoftHsmToken(stage.control_plane.directory / "softhsm", label="demo")
    stage.report.note(f"token {stage.token.label!r}, module {stage.token.module}, its PIN in a file of mode 0600")


def chart(stage: Stage) -> None:
    """Everything of the chart that needs no nodes."""
    stage.installation = install(stage.control_plane)
    stage.report.note(f"helm template charts/strongroom --namespace {NAMESPACE} | kubectl apply --server-side")
    stage.report.note("(the operator runs as a process of this machine, in place of the chart's Deployment)")
    stage.admin.run("kubectl get crds,validatingadmissionpolicies,clusterroles -o name | grep strongroom")


def operator(stage: Stage) -> None:
    """The operator, with a token of the chart's ServiceAccount and no other credentials."""
    stage.operator = OperatorProcess(stage.installation, [stage.token])
    stage.on_close(stage.operator.stop)
    stage.operator.start()
    account = f"system:serviceaccount:{NAMESPACE}:strongroom"
    whoami = stage.control_plane.kubectl.with_kubeconfig(stage.operator.kubeconfig).json("auth", "whoami")
    expect(whoami["status"]["userInfo"]["username"] == account, f"the operator should be {account}")
    stage.report.note(f"the operator runs as {account}, pid {stage.operator.pid}")

    def available() -> bool:
        conditions = stage.admin.kubectl.json("get", "apiservice", _API_SERVICE).get("status", {}).get("conditions", [])
        return any(found["type"] == "Available" and found["status"] == "True" for found in conditions)

    wait_for(available, _AVAILABLE_SECONDS, f"APIService {_API_SERVICE} to be Available", retry_on=(KubectlError,))
    stage.admin.run(f"kubectl get apiservice {_API_SERVICE}")


def master_key(stage: Stage) -> None:
    """examples/customermasterkey.yaml."""
    stage.admin.run("kubectl apply -f examples/customermasterkey.yaml")
    stage.wait_reason("customermasterkey", "prod", "KeyReady")
    stage.admin.run("kubectl get cmk prod -o wide")


def key_stays_inside(stage: Stage) -> None:
    """What the operator reports, and what whoever holds the PIN gets from the token itself."""
    shown = stage.admin.run("kubectl get cmk prod -o jsonpath='{.status.hsm}'")
    expect('"neverExtractable":true' in shown, "status.hsm.neverExtractable should be true")
    arguments = shlex.join([str(stage.token.module), stage.token.label, str(stage.token.pin_file)])
    configuration = shlex.quote(stage.token.environment["SOFTHSM2_CONF"])
    said = stage.admin.run(
        f"SOFTHSM2_CONF={configuration} PYTHONPATH={shlex.quote(str(REPOSITORY))} \\\n"
        f"  {shlex.quote(sys.executable)} -m testbed.demo.tokenprobe {arguments}"
    )
    expect("CKR_ATTRIBUTE_SENSITIVE" in said, "the token should refuse to show the key")


def people(stage: Stage) -> None:
    """Certificate users, and what examples/team-encrypter.yaml lets the group developers do."""
    stage.admin.run(
        "kubectl create namespace shop && kubectl create namespace website && kubectl create namespace office"
    )
    stage.admin.run("kubectl apply -f examples/team-encrypter.yaml")
    stage.alice = stage.person("alice", ["developers"])
    stage.bob = stage.person("bob")
    stage.carol = stage.person("carol")
    stage.dave = stage.person("dave")
    stage.report.note("alice: group developers. bob, carol and dave: no permissions yet")
    stage.alice.run("strongroom keys show prod -n shop")
    stage.alice.refused("kubectl get secrets -n shop", "forbidden")


def stopped(stage: Stage) -> None:
    """Everything stopped, nothing left behind."""
    started = [
        *(process.pid for process in stage.control_plane.processes()),
        *_family(stage.operator.pid),
    ]
    status = stage.operator.stop()
    expect(status == 0, f"the operator should end with 0 on SIGTERM, not with {status}")
    stage.close()
    left = [pid for pid in started if _alive(pid)]
    expect(not left, f"still running: {left}")
    for directory in (stage.workspace, stage.control_plane.directory):
        expect(not directory.exists(), f"{directory} is still there")
    stage.report.note(f"{len(started)} processes ended, the operator with status 0; all files of theirs are removed")


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for child in file.read().split():
                found += _family(int(child))
    return found


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie that init has yet to collect does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
