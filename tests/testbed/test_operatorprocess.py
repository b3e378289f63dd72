# SPDX-License-Identifier: Apache-2.0
"""The operator runs as the chart's ServiceAccount, can be stopped, killed and replaced, and is alone."""

import signal
from pathlib import Path

import pytest

from testbed import TestBedError
from testbed.faultproxy import FaultProxy
from testbed.kubectl import Kubectl
from testbed.operator import OperatorProcess
from testbed.operatorslot import OwnOperator
from testbed.processes import alive
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.hsm]

_CRYPTO_API = "/apis/crypto.strongroom.dev/v1alpha1"


def test_crypto_api_answers_through_the_api_server(operator: OperatorProcess, kubectl: Kubectl) -> None:
    assert operator.ready()
    assert "APIResourceList" in kubectl("get", "--raw", _CRYPTO_API)
    assert operator.metrics().value("strongroom_hsm_up", token="default") == 1
    assert "HSMLogin" in {line["eventName"] for line in operator.audit_lines()}


def test_killed_operator_is_there_again_for_the_next_test(operator: OperatorProcess) -> None:
    assert operator.kill() == -signal.SIGKILL
    assert not operator.running
    operator.start()
    assert operator.ready()


def test_own_operator_replaces_the_shared_one(
    operator: OperatorProcess, own_operator: OwnOperator, new_token: SoftHsmToken, fault_proxy: FaultProxy
) -> None:
    own = own_operator(tokens=[new_token], overrides={"relistSeconds": 7}, server=fault_proxy.url)
    assert not operator.running
    assert own.config["relistSeconds"] == 7
    assert own.config["hsms"][0]["tokenLabel"] == new_token.label
    wait_for(lambda: any(request.watch for request in fault_proxy.requests), 30, "a watch through the proxy")
    assert own.stop() == 0


def test_no_child_outlives_the_operator(own_operator: OwnOperator) -> None:
    own = own_operator()
    children = [int(pid) for pid in Path(f"/proc/{own.pid}/task/{own.pid}/children").read_text().split()]
    assert children, "the HSM worker is a process of its own"
    own.kill()
    wait_for(lambda: not any(alive(child) for child in children), 5, f"processes {children} to be gone")


def test_mistake_in_the_configuration_is_shown(own_operator: OwnOperator) -> None:
    with pytest.raises(TestBedError, match=r"operator ended with status \d+\n(.*\n)*.*relistSeconds"):
        own_operator(overrides={"relistSeconds": "soon"})
