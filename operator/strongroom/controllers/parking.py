# SPDX-License-Identifier: Apache-2.0
"""Where a failed object waits, by what can heal it; and what brings it back."""

from collections.abc import Callable
from typing import Final, assert_never

from strongroom.controllers.waiting import Grant, PermissionRoom, WaitingRoom
from strongroom.controllers.workqueue import Lane, WorkQueue
from strongroom.errors import Healing, Reason, StrongroomError
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import ObjectKey

_FOREIGN_SECONDS: Final = 60.0
"""How often a foreign Secret in the way is looked at again: it cannot be watched without watching all Secrets."""
_IMMUTABLE_SECONDS: Final = 300.0
"""How often a change of what cannot be changed is tried again: each try is a decryption."""
_QUIET_RETRIES: Final = 3
"""Tries after a passing failure before the status speaks of it: a worker process that restarts is back in a second."""


class Parking:
    """Every failed EncryptedSecret is in here, or in the queue with a backoff.

    `token_of` gives the name of the token that holds a key, and whether that token answers now.
    """

    def __init__(
        self, queue: WorkQueue, permission: PermissionRoom, *, token_of: Callable[[str], tuple[str, bool]]
    ) -> None:
        self._queue = queue
        self._permission = permission
        self._token_of = token_of
        self._by_key: WaitingRoom[str] = WaitingRoom()
        self._by_token: WaitingRoom[str] = WaitingRoom()
        self._released: set[ObjectKey] = set()
        self._changes: dict[str, int] = {}
        self._final: dict[ObjectKey, tuple[str, int]] = {}

    def changes_of(self, key_name: str) -> int:
        """How often the key has changed: to be asked before a try, and told to `park` after it."""
        return self._changes.get(key_name, 0)

    def park(self, secret: EncryptedSecret, error: StrongroomError, *, changes: int) -> bool:
        """Put the object where its failure can heal. True if it will be tried again at once, so that a status about
        it would be old news. `changes`: see `changes_of`; a key that changed during the try wakes nobody later."""
        self.leave(secret.key)
        match error.reason.healing:
            case Healing.RETRY:
                failures = self._queue.retry(secret.key)
                passing = error.reason in (Reason.UNAVAILABLE, Reason.THROTTLED)
                return passing and failures <= _QUIET_RETRIES
            case Healing.PERMISSION:
                self._permission.enter(secret.key, grant_of(secret), error)
            case Healing.TOKEN:
                token, available = self._token_of(secret.key_name)
                if available:  # it came back while the request failed
                    return self._queue.retry(secret.key) <= _QUIET_RETRIES
                self._by_token.enter(secret.key, token)
                self.wait_for_key(secret)  # which may move to another token
            case Healing.KEY:
                if changes != self.changes_of(secret.key_name):
                    return self._queue.retry(secret.key) <= _QUIET_RETRIES
                self.wait_for_key(secret)
            case Healing.SECRET:
                foreign = error.reason is Reason.TARGET_NOT_OWNED
                self._queue.add_after(secret.key, _FOREIGN_SECONDS if foreign else _IMMUTABLE_SECONDS)
            case Healing.OBJECT:
                self._final[secret.key] = secret.uid, secret.generation
            case _ as unreachable:
                assert_never(unreachable)
        return False

    def is_final(self, secret: EncryptedSecret) -> bool:
        """Whether this generation of the object was refused for good, so that only another one is tried again."""
        return self._final.get(secret.key) == (secret.uid, secret.generation)

    def wait_for_key(self, secret: EncryptedSecret) -> None:
        """The object is looked at again when its CustomerMasterKey changes."""
        self._by_key.enter(secret.key, secret.key_name)

    def leave(self, key: ObjectKey) -> None:
        """The object is well, gone, or about to be judged anew."""
        self._released.discard(key)
        self._final.pop(key, None)
        self._by_key.leave(key)
        self._by_token.leave(key)
        self._permission.leave(key)

    def key_changed(self, key_name: str) -> None:
        """A CustomerMasterKey is not as it was: whatever waits for it is tried again."""
        self._changes[key_name] = self.changes_of(key_name) + 1
        self.release(self._by_key.release(key_name))

    def token_available(self, token: str) -> None:
        """A token answers again: whatever waits for it is tried again."""
        self.release(self._by_token.release(token))

    def release(self, keys: set[ObjectKey]) -> None:
        """Try these again: what they waited for has changed."""
        self._released |= keys
        for key in keys:
            self._queue.add(key, Lane.BACKLOG)

    def is_released(self, key: ObjectKey) -> bool:
        """Whether what the object waited for has changed since it was last judged."""
        return key in self._released


def grant_of(secret: EncryptedSecret) -> Grant:
    """The permission that the object needs."""
    return Grant(secret.key.namespace, secret.service_account, secret.key_name)
