# SPDX-License-Identifier: Apache-2.0
"""What to do with one EncryptedSecret: a pure function of what is known. First rule that applies wins."""

from dataclasses import dataclass
from enum import Enum, unique

from strongroom.errors import Reason
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
    # Nothing it depends on has changed, and trying again would cost the HSM: a bad ciphertext stays one.
    if secret.observed and secret.reason == Reason.INVALID_CIPHERTEXT and not snapshot.released:
        return Action.IGNORE
    return Action.UNSEAL
