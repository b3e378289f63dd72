# SPDX-License-Identifier: Apache-2.0
import itertools
from dataclasses import replace
from typing import Any

import pytest

from strongroom.controllers.decision import Action, Snapshot, decide
from strongroom.errors import Reason
from strongroom.model import secretfacts
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.secretfacts import SecretFacts
from tests.unit.fakes import encrypted_secret


def secret(
    *,
    reason: str = "",
    ready: bool = False,
    observed: bool = True,
    applied: bool = True,
    deleting: bool = False,
    suspended: bool = False,
) -> EncryptedSecret:
    found = encrypted_secret(generation=2, deleting=deleting, suspend=suspended)
    status: dict[str, Any] = {"observedGeneration": 2 if observed else 1}
    if applied:
        status["appliedSpec"] = found.spec_digest
    if ready or reason:
        status["conditions"] = [
            {"type": "Ready", "status": "True" if ready else "False", "reason": reason or "Decrypted"}
        ]
    return replace(found, status=status)


APPLIED = "strongroom.dev/applied-spec"


def target(*, drifted: bool = False, of_this_spec: bool = True) -> SecretFacts:
    wanted = encrypted_secret()
    metadata = {
        "namespace": "shop",
        "name": "db",
        "uid": "u",
        "resourceVersion": "1",
        "labels": wanted.labels,
        "annotations": wanted.annotations if of_this_spec else wanted.annotations | {APPLIED: "sha256:of another spec"},
        "ownerReferences": [wanted.owner_reference],
        "managedFields": [
            {"manager": "strongroom", "fieldsV1": {"f:type": {}, "f:data": {"f:password": {}}}},
            *([{"manager": "kubectl-edit", "fieldsV1": {"f:data": {"f:extra": {}}}}] if drifted else []),
        ],
    }
    return secretfacts.parse({"metadata": metadata})


IN_SYNC, DRIFTED, NONE = target(), target(drifted=True), None
READY = {"ready": True}


@pytest.mark.parametrize(
    ("found", "known", "action"),
    [
        pytest.param(secret(**READY), IN_SYNC, Action.IGNORE, id="as-it-should-be"),
        pytest.param(secret(**READY), DRIFTED, Action.UNSEAL, id="someone-changed-the-secret"),
        pytest.param(secret(**READY), NONE, Action.UNSEAL, id="someone-deleted-the-secret"),
        pytest.param(secret(applied=False, observed=False), NONE, Action.UNSEAL, id="new"),
        pytest.param(secret(**READY, applied=False, observed=False), IN_SYNC, Action.UNSEAL, id="spec-changed"),
        pytest.param(secret(**READY, observed=False), IN_SYNC, Action.CONFIRM, id="other-generation-same-spec"),
        pytest.param(
            secret(reason="Unavailable", observed=False),
            target(of_this_spec=False),
            Action.UNSEAL,
            id="changed-back-after-the-other-spec-was-written-and-before-status-said-so",
        ),
        pytest.param(secret(reason="KeyDisabled"), IN_SYNC, Action.CONFIRM, id="failed-but-changed-back"),
        pytest.param(secret(reason="Suspended"), IN_SYNC, Action.CONFIRM, id="resumed-and-nobody-touched-it"),
        pytest.param(secret(reason="Suspended", observed=False), DRIFTED, Action.UNSEAL, id="resumed-and-drifted"),
        pytest.param(secret(suspended=True), NONE, Action.SUSPEND, id="suspended-without-a-secret"),
        pytest.param(secret(**READY, suspended=True), DRIFTED, Action.SUSPEND, id="suspended-is-not-repaired"),
        pytest.param(secret(**READY, suspended=True), IN_SYNC, Action.SUSPEND, id="suspended-and-right"),
        pytest.param(secret(**READY, deleting=True), DRIFTED, Action.IGNORE, id="being-deleted-is-not-repaired"),
        pytest.param(secret(deleting=True, applied=False), NONE, Action.IGNORE, id="being-deleted-is-not-written-for"),
        pytest.param(secret(deleting=True, suspended=True), NONE, Action.IGNORE, id="being-deleted-and-suspended"),
        pytest.param(secret(reason="InvalidCiphertext", applied=False), NONE, Action.IGNORE, id="bad-blob-is-final"),
        pytest.param(
            secret(reason="InvalidCiphertext", applied=False, observed=False),
            NONE,
            Action.UNSEAL,
            id="bad-blob-replaced",
        ),
        pytest.param(secret(reason="InvalidCiphertext"), DRIFTED, Action.IGNORE, id="bad-blob-and-a-drifted-secret"),
        pytest.param(secret(reason="WhatANextVersionSays", applied=False), NONE, Action.UNSEAL, id="reason-unknown"),
        pytest.param(secret(applied=False), NONE, Action.UNSEAL, id="no-condition-yet"),
    ],
)
def test_the_first_rule_that_applies_wins(found: EncryptedSecret, known: SecretFacts | None, action: Action) -> None:
    assert decide(Snapshot(found, known, watching=True, released=False)) is action


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.http_status >= 400])
def test_after_a_failure_only_a_bad_blob_is_left_alone(reason: Reason) -> None:
    """Any other refusal costs the token nothing, and what refused may be the operator's version or configuration."""
    final = reason is Reason.INVALID_CIPHERTEXT
    failed = secret(reason=reason.value, applied=False)
    assert decide(Snapshot(failed, NONE, watching=True, released=False)) is (Action.IGNORE if final else Action.UNSEAL)
    assert decide(Snapshot(failed, NONE, watching=True, released=True)) is Action.UNSEAL


@pytest.mark.parametrize(
    ("found", "action"),
    [
        pytest.param(secret(**READY), Action.IGNORE, id="ready"),
        pytest.param(secret(**READY, observed=False), Action.CONFIRM, id="same-spec"),
        pytest.param(secret(**READY, observed=False, applied=False), Action.UNSEAL, id="spec-changed"),
    ],
)
def test_without_a_watch_on_secrets_the_last_write_is_believed(found: EncryptedSecret, action: Action) -> None:
    assert decide(Snapshot(found, NONE, watching=False, released=False)) is action


def test_whatever_is_known_nothing_is_written_for_what_is_deleted_or_suspended() -> None:
    flags = [False, True]
    for deleting, ready, observed, applied, watching, released in itertools.product(flags, repeat=6):
        for known in (NONE, IN_SYNC, DRIFTED):
            for suspended in flags:
                found = secret(deleting=deleting, suspended=suspended, ready=ready, observed=observed, applied=applied)
                action = decide(Snapshot(found, known, watching=watching, released=released))
                if deleting:
                    assert action is Action.IGNORE
                elif suspended:
                    assert action is Action.SUSPEND
                elif not applied:
                    assert action is Action.UNSEAL
                else:
                    in_sync = known is IN_SYNC or not watching
                    settled = Action.IGNORE if ready and observed else Action.CONFIRM
                    assert action is (settled if in_sync else Action.UNSEAL)
