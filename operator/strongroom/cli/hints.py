# SPDX-License-Identifier: Apache-2.0
"""What to do about a failure whose origin does not say so itself."""

from strongroom.errors import Reason

_HINTS = {
    Reason.ACCESS_DENIED: "Ask an administrator for a RoleBinding in that namespace: to the ClusterRole "
    "strongroom-key-encrypter for encrypting, strongroom-key-decrypter for decrypting",
    Reason.INVALID_REQUEST: "Correct the input; if it is right, compare client and server: strongroom version",
    Reason.INVALID_ENCRYPTION_CONTEXT: "Use at most 16 pairs and 1024 bytes in all, no empty key",
    Reason.INVALID_CIPHERTEXT: "Scope, namespace, name, data key and encryption context must be those it was made for",
    Reason.KEY_NOT_FOUND: "'strongroom keys list' shows the keys",
    Reason.KEY_ARCHIVED: "The key still decrypts; encrypt with another",
    Reason.HSM_UNAVAILABLE: "Try again when the HSM is back",
    Reason.THROTTLED: "Try again later",
    Reason.UNAVAILABLE: "Try again later",
    Reason.INTERNAL: "Try again; if it stays, ask an administrator to look at the operator's log",
}
_FALLBACK = "Ask an administrator of the key; 'kubectl describe customermasterkey NAME' tells its state"


def hint_for(reason: Reason) -> str:
    """Never empty: every failure says what to do."""
    return _HINTS.get(reason, _FALLBACK)
