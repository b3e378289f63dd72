# SPDX-License-Identifier: Apache-2.0
"""`python -m testbed.demo`: runs the steps in order; exit status 1 if any is not as it should be."""

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from testbed.demo import mainjob, refusals, setup, writeexamples
from testbed.demo.report import Report
from testbed.demo.stage import Stage

_LOG_LINES = 25


@dataclass(frozen=True, slots=True)
class _Step:
    title: str
    run: Callable[[Stage], None]
    required: bool = False
    """The steps behind it make no sense without it."""
    chapter: str = ""
    """Heading of the chapter that begins with it."""


_PREPARATION = (
    _Step("Start etcd, kube-apiserver, kube-controller-manager", setup.control_plane, True, "Set-up"),
    _Step("Make a PKCS#11 token (SoftHSM)", setup.token, True),
    _Step("Install the chart: CRDs, RBAC, policies, APIService", setup.chart, True),
    _Step("Start the operator as the chart's ServiceAccount", setup.operator, True),
    _Step("Create the master key prod", setup.master_key, True),
    _Step("The key cannot be read out of the token", setup.key_stays_inside),
    _Step("Let developers encrypt for namespace shop", setup.people, True),
    _Step("Make Secrets of every common kind", mainjob.make_secrets, True, "The main job"),
    _Step("Encrypt them, as developer", mainjob.encrypt, True),
)
_MAIN_JOB = (
    _Step("The output holds no plaintext", mainjob.no_plaintext_in_output),
    _Step("Permit namespace shop, apply the ciphertext", mainjob.apply, True),
    _Step("Every Secret equals its original, byte for byte", mainjob.compare),
    _Step("Events tell what happened", mainjob.events),
    _Step("The audit log records every use", mainjob.audit),
    _Step("Secrets changed or deleted by hand come back", mainjob.heal),
    _Step("Break-glass decryption, for who may", mainjob.decrypt),
    _Step("Inspect ciphertext offline", mainjob.inspect),
    _Step("A value of 4097 bytes", refusals.too_large, chapter="Refusals"),
    _Step("Ciphertext moved to another namespace", refusals.moved),
    _Step("A namespace without permission on the key", refusals.namespace_without_permission),
    _Step("A user without permission on the key", refusals.user_without_permission),
    _Step("A user with permission in another namespace only", refusals.user_of_another_namespace),
    _Step("A disabled key", refusals.disabled_key),
    _Step("No plaintext in any log, Event, status or file", refusals.no_plaintext_anywhere, chapter="At the end"),
)
_STOP = _Step("Stop everything", setup.stopped)
_WRITE_EXAMPLES = _Step("Write examples/encryptedsecret-*.yaml", writeexamples.write)


def main() -> int:
    """Run the demonstration; 0 if every step was as it should be."""
    parser = argparse.ArgumentParser(prog="python -m testbed.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C (KEEP=1 does the same)")
    parser.add_argument("--write-examples", action="store_true", help="only make examples/encryptedsecret-*.yaml anew")
    arguments = parser.parse_args()
    keep = arguments.keep or os.environ.get("KEEP", "") not in ("", "0")
    steps: tuple[_Step, ...] = (
        (*_PREPARATION, _WRITE_EXAMPLES) if arguments.write_examples else _PREPARATION + _MAIN_JOB
    )
    signal.signal(signal.SIGTERM, _interrupt)
    report = Report(len(steps) + (not keep))
    stage = Stage(report)
    try:
        completed = _run(steps, stage)
        if report.failed:
            _show_log(stage)
        if completed and not keep:
            _run((_STOP,), stage)
        report.summary()
        if keep and hasattr(stage, "operator"):
            _wait(stage)
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
        if not keep:
            return 130
    finally:
        stage.close()
    return 0 if report.passed else 1


def _run(steps: tuple[_Step, ...], stage: Stage) -> bool:
    """Whether all of them were tried."""
    for step in steps:
        if step.chapter:
            stage.report.chapter(step.chapter)
        if not stage.report.run(step.title, functools.partial(step.run, stage)) and step.required:
            return False
    return True


def _show_log(stage: Stage) -> None:
    if hasattr(stage, "operator"):
        stage.report.chapter("The end of the operator's log")
        print("\n".join(stage.operator.log_text().splitlines()[-_LOG_LINES:]))


def _wait(stage: Stage) -> None:
    """Say how to talk to it, and leave it running until Ctrl-C."""
    stage.report.chapter("It is still running. In another terminal:")
    for who in (stage.admin, stage.alice):
        print(f"  # as {who.name}")
        print(f"  export KUBECONFIG={who.kubectl.kubeconfig} PATH={who.path}:$PATH")
    print("  kubectl get cmk && kubectl get esec -A && strongroom keys show prod -n shop")
    print(f"  tail -f {stage.operator.log_file} {stage.operator.audit_file}")
    print(f"  cd {stage.workspace}   # plain/, git/, examples/")
    print("\nCtrl-C stops and removes everything.", flush=True)
    signal.pause()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
