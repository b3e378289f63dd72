# SPDX-License-Identifier: Apache-2.0
"""Master keys: specs, states, and which operation each state allows."""

from enum import StrEnum, unique

from strongroom.errors import Reason


@unique
class KeySpec(StrEnum):
    """Kind of key material. An open list: an unknown one is `UnsupportedFormat`, never a guess."""

    AES_256 = "AES_256"
    RSA_3072 = "RSA_3072"
    """Anyone with the public key can seal; the token alone opens."""
    RSA_4096 = "RSA_4096"

    @property
    def asymmetric(self) -> bool:
        """Whether values are sealed with a public key, so by anyone."""
        return self is not KeySpec.AES_256


@unique
class KeyState(StrEnum):
    """What an administrator asked for, and the states that follow from facts."""

    CREATING = "Creating"
    ENABLED = "Enabled"
    DISABLED = "Disabled"
    ARCHIVED = "Archived"
    PENDING_DELETION = "PendingDeletion"
    DESTROYED = "Destroyed"


@unique
class VersionState(StrEnum):
    """State of one key version."""

    PRIMARY = "Primary"
    """Encrypts and decrypts."""
    DECRYPT_ONLY = "DecryptOnly"


@unique
class Operation(StrEnum):
    """Cryptographic operations, named as in audit records."""

    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"


_REFUSALS: dict[KeyState, tuple[Reason | None, Reason | None]] = {
    # state: (why not encrypt, why not decrypt)
    KeyState.CREATING: (Reason.KEY_NOT_READY, Reason.KEY_NOT_READY),
    KeyState.ENABLED: (None, None),
    KeyState.DISABLED: (Reason.KEY_DISABLED, Reason.KEY_DISABLED),
    KeyState.ARCHIVED: (Reason.KEY_ARCHIVED, None),
    KeyState.PENDING_DELETION: (Reason.KEY_PENDING_DELETION, Reason.KEY_PENDING_DELETION),
    KeyState.DESTROYED: (Reason.KEY_DESTROYED, Reason.KEY_DESTROYED),
}


def refusal(state: KeyState, operation: Operation) -> Reason | None:
    """Why this state forbids the operation; None if it allows it."""
    encrypt, decrypt = _REFUSALS[state]
    match operation:
        case Operation.ENCRYPT:
            return encrypt
        case Operation.DECRYPT:
            return decrypt
