# SPDX-License-Identifier: Apache-2.0
import pytest

from strongroom.errors import (
    AccessDenied,
    Healing,
    InvalidCiphertext,
    PlaintextTooLarge,
    Reason,
    StrongroomError,
)

# Reason: HTTP status, healing. What users and other programs rely on, so it stands here a second time.
TABLE = {
    "Decrypted": (200, Healing.OBJECT),
    "KeyReady": (200, Healing.OBJECT),
    "KeyAdopted": (200, Healing.OBJECT),
    "Suspended": (409, Healing.OBJECT),
    "AsymmetricKey": (200, Healing.OBJECT),
    "AccessDenied": (403, Healing.PERMISSION),
    "PlaintextTooLarge": (413, Healing.OBJECT),
    "InvalidEncryptionContext": (400, Healing.OBJECT),
    "InvalidCiphertext": (400, Healing.KEY),
    "IncorrectKey": (400, Healing.KEY),
    "UnsupportedFormat": (400, Healing.OBJECT),
    "InvalidRequest": (400, Healing.OBJECT),
    "KeyNotFound": (404, Healing.KEY),
    "KeyVersionNotFound": (404, Healing.KEY),
    "KeyDisabled": (409, Healing.KEY),
    "KeyArchived": (409, Healing.KEY),
    "KeyPendingDeletion": (409, Healing.KEY),
    "KeyDestroyed": (409, Healing.KEY),
    "KeyNotReady": (409, Healing.KEY),
    "KeyExists": (409, Healing.KEY),
    "KeyConflict": (409, Healing.KEY),
    "KeyExhausted": (409, Healing.KEY),
    "InvalidKeyUsage": (400, Healing.OBJECT),
    "ImmutableField": (422, Healing.OBJECT),
    "HSMUnavailable": (503, Healing.TOKEN),
    "HSMPinInvalid": (503, Healing.TOKEN),
    "HSMError": (500, Healing.RETRY),
    "TargetNotOwned": (409, Healing.SECRET),
    "TargetImmutable": (409, Healing.SECRET),
    "TargetRejected": (422, Healing.RETRY),
    "ForbiddenSecretType": (403, Healing.OBJECT),
    "OperatorForbidden": (500, Healing.RETRY),
    "AuditUnavailable": (503, Healing.RETRY),
    "Throttled": (429, Healing.RETRY),
    "Unavailable": (503, Healing.RETRY),
    "Internal": (500, Healing.RETRY),
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_consequence(reason: Reason) -> None:
    assert (reason.http_status, reason.healing) == TABLE[reason.value]


def test_no_reason_is_missing() -> None:
    assert {reason.value for reason in Reason} == TABLE.keys()


def test_an_error_reads_as_message_and_hint() -> None:
    error = StrongroomError(Reason.INTERNAL, "it broke", hint="Try again", ckr="CKR_GENERAL_ERROR")
    assert str(error) == "it broke. Try again"
    assert str(StrongroomError(Reason.INTERNAL, "it broke")) == "it broke"
    assert error.ckr == "CKR_GENERAL_ERROR"


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        pytest.param(
            PlaintextTooLarge(where="data key 'tls'", size=4097, limit=4096),
            Reason.PLAINTEXT_TOO_LARGE,
            ["data key 'tls'", "4097", "4096", "generatedatakey"],
            id="too-large",
        ),
        pytest.param(
            InvalidCiphertext(where="data key 'tls'"),
            Reason.INVALID_CIPHERTEXT,
            ["data key 'tls'", "damaged", "scope", "namespace", "name", "encryption context", "strongroom encrypt"],
            id="bad-blob",
        ),
        pytest.param(
            AccessDenied(who="jane", may_not="encrypt", grant="kubectl create"),
            Reason.ACCESS_DENIED,
            ["jane may not encrypt", "To grant it: kubectl create"],
            id="denied",
        ),
    ],
)
def test_an_error_says_what_where_and_what_to_do(error: StrongroomError, reason: Reason, words: list[str]) -> None:
    assert error.reason is reason
    assert [word for word in words if word not in str(error)] == []
