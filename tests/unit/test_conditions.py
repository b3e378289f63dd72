# SPDX-License-Identifier: Apache-2.0
import pytest

from strongroom.errors import Healing, Reason
from strongroom.model import conditions
from strongroom.model.conditions import Condition, ConditionType

OLD, NOW = "2026-01-01T00:00:00Z", "2026-11-23T10:00:00Z"


def written(type_: str, status: str, *, reason: str = "Decrypted", at: str = OLD) -> dict[str, object]:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": "m",
        "observedGeneration": 1,
        "lastTransitionTime": at,
    }


def ready(status: bool, reason: Reason = Reason.DECRYPTED) -> Condition:
    return Condition(ConditionType.READY, status, reason, "message", 2)


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        pytest.param([], ready(True), NOW, id="new"),
        pytest.param([written("Ready", "True")], ready(True), OLD, id="same-status"),
        pytest.param([written("Ready", "True")], ready(False), NOW, id="turned-false"),
        pytest.param([written("Ready", "Unknown")], ready(False), NOW, id="was-unknown"),
        pytest.param(
            [written("Ready", "False", reason="KeyDisabled")],
            ready(False, Reason.ACCESS_DENIED),
            OLD,
            id="other-reason-same-status",
        ),
        pytest.param([written("Stalled", "True")], ready(True), NOW, id="only-another-type-stood-there"),
    ],
)
def test_the_transition_time_moves_only_with_the_status(old: list[dict[str, object]], new: Condition, at: str) -> None:
    (merged,) = conditions.merge(old, [new], NOW)
    assert merged == {
        "type": "Ready",
        "status": "True" if new.status else "False",
        "reason": new.reason.value,
        "message": "message",
        "observedGeneration": 2,
        "lastTransitionTime": at,
    }


def test_what_is_not_said_again_is_dropped_and_the_order_is_the_new_one() -> None:
    old = [written("Stalled", "True"), written("Ready", "False")]
    new = conditions.not_ready(Reason.HSM_UNAVAILABLE, "away", 2)
    assert [entry["type"] for entry in conditions.merge(old, new, NOW)] == ["Ready", "Reconciling"]


def test_sealing_by_anyone_is_a_property_and_no_failure() -> None:
    """kstatus looks at Ready, Reconciling and Stalled alone, and takes no other condition for a verdict."""
    known = conditions.unauthenticated_sealing(3)
    assert (known.type.value, known.status, known.generation) == ("UnauthenticatedSealing", True, 3)
    assert known.reason is Reason.ASYMMETRIC_KEY
    merged = conditions.merge([], [*conditions.ready(Reason.KEY_READY, "m", 3), known], NOW)
    assert [entry["type"] for entry in merged] == ["Ready", "UnauthenticatedSealing"]


def test_a_message_is_cut_to_what_the_api_server_takes() -> None:
    new = Condition(ConditionType.READY, False, Reason.INTERNAL, "é" * 40_000, 1)
    assert conditions.merge([], [new], NOW)[0]["message"] == "é" * 32768


def test_merging_twice_changes_nothing() -> None:
    new = conditions.not_ready(Reason.ACCESS_DENIED, "no", 1)
    once = conditions.merge([], new, OLD)
    assert conditions.merge(once, new, NOW) == once


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.http_status >= 400])
def test_a_failure_is_stalled_exactly_if_only_someones_doing_helps(reason: Reason) -> None:
    first, second = conditions.not_ready(reason, "m", 1)
    assert (first.type, first.status) == (ConditionType.READY, False)
    passing = reason.healing in (Healing.RETRY, Healing.TOKEN, Healing.PERMISSION)
    assert second.type is (ConditionType.RECONCILING if passing else ConditionType.STALLED)


@pytest.mark.parametrize("stalled", [True, False])
def test_who_knows_how_long_it_lasted_decides(stalled: bool) -> None:
    _, second = conditions.not_ready(Reason.ACCESS_DENIED, "m", 1, stalled=stalled)
    assert (second.type is ConditionType.STALLED) is stalled
