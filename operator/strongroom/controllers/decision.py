# SPDX-License-Identifier: Apache-2.0
"""What to do with one EncryptedSecret: a pure function of what is known. First rule that applies wins."""

from dataclasses import dataclass
from enum import Enum, unique

from strongroom.errors import Healing, Reason
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.secretfacts import SecretFacts


@unique
class Action(Enum):
    """What to do."""

    IGNORE = "ignore"
    """Nothing: it is as it should be, or not ours to touch."""
    SUSPEND = "suspend"
    """Say so in status; write no Secret."""
    CONFIRM = "confirm"
    """The Secret is right, only the status is not: write status alone."""
    UNSEAL = "unseal"
    """Decrypt and write the Secret."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the decision may see."""

    secret: EncryptedSecret
    target: SecretFacts | None
    """The Secret as known; None if there is none, or if Secrets are not watched."""
    watching: bool
    """Whether Secrets are watched, so that `target` means something."""
    released: bool
    """Whether what a failed object waited for has changed: the key, the token, the permission."""


def decide(snapshot: Snapshot) -> Action:
    """The one decision about one object."""
    secret = snapshot.secret
    # On its way out: neither written for nor healed, so that foreground and orphan deletion end as asked.
    if secret.deleting:
        return Action.IGNORE
    if secret.suspended:
        return Action.SUSPEND
    in_sync = not snapshot.watching or (snapshot.target is not None and snapshot.target.in_sync_with(secret))
    # As it should be. This is what every unchanged object meets after a restart: no write, no HSM operation.
    if secret.ready and secret.observed and secret.applied and in_sync:
        return Action.IGNORE
    # The same spec was applied before, for instance before it was suspended, and nobody touched the Secret.
    if secret.applied and in_sync:
        return Action.CONFIRM
    # Failed for good, and nothing it depends on has changed.
    if secret.observed and not secret.ready and not snapshot.released and _is_final(secret.reason):
        return Action.IGNORE
    return Action.UNSEAL


def _is_final(reason: str) -> bool:
    """Whether only a change of the object or of its key helps, so that trying again is in vain."""
    if reason == Reason.INVALID_CIPHERTEXT:
        return True
    return reason in Reason.__members__.values() and Reason(reason).healing is Healing.OBJECT
