# SPDX-License-Identifier: Apache-2.0
"""Status conditions by the rules of kstatus (cli-utils) and the Kubernetes API conventions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any

from strongroom.errors import Healing, Reason


@unique
class ConditionType(StrEnum):
    """Condition types we write."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    """Present while it will be retried: kstatus InProgress."""
    STALLED = "Stalled"
    """Present while only a change by someone can help: kstatus Failed."""
    SUSPENDED = "Suspended"
    UNAUTHENTICATED_SEALING = "UnauthenticatedSealing"
    """Present on keys whose values anyone can make. A property, not a failure: kstatus does not look at it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without its transition time, which `merge` keeps or sets."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str
    generation: int


_MAX_MESSAGE = 32768
"""metav1.Condition's maxLength."""


def merge(old: Iterable[Mapping[str, Any]], new: Iterable[Condition], now: str) -> list[dict[str, Any]]:
    """The list to write: exactly `new`, with the old transition time where the status did not change."""
    before = {condition["type"]: condition for condition in old}
    merged = []
    for condition in new:
        status = "True" if condition.status else "False"
        earlier = before.get(condition.type.value)
        unchanged = earlier is not None and earlier["status"] == status
        merged.append(
            {
                "type": condition.type.value,
                "status": status,
                "reason": condition.reason.value,
                "message": condition.message[:_MAX_MESSAGE],
                "observedGeneration": condition.generation,
                "lastTransitionTime": earlier["lastTransitionTime"] if earlier and unchanged else now,
            }
        )
    return merged


def ready(reason: Reason, message: str, generation: int) -> list[Condition]:
    """The conditions of an object that is as asked."""
    return [Condition(ConditionType.READY, True, reason, message, generation)]


def unauthenticated_sealing(generation: int) -> Condition:
    """What holds of every key with a public half, ready or not."""
    message = (
        "anyone who has the public key can seal values, without permission and without a record; who may apply "
        "EncryptedSecrets, and use of the key, decide what becomes a Secret"
    )
    return Condition(ConditionType.UNAUTHENTICATED_SEALING, True, Reason.ASYMMETRIC_KEY, message, generation)


def not_ready(reason: Reason, message: str, generation: int, *, stalled: bool | None = None) -> list[Condition]:
    """The conditions of an object that is not: Reconciling or Stalled by the reason, unless said otherwise."""
    if stalled is None:
        stalled = reason.healing in (Healing.KEY, Healing.SECRET, Healing.OBJECT)
    second = ConditionType.STALLED if stalled else ConditionType.RECONCILING
    return [
        Condition(ConditionType.READY, False, reason, message, generation),
        Condition(second, True, reason, message, generation),
    ]
