# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from strongroom.controllers.parking import Parking
from strongroom.controllers.waiting import Grant
from strongroom.controllers.workqueue import Lane
from strongroom.errors import Healing, Reason, StrongroomError
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import ObjectKey
from tests.unit.fakes import encrypted_secret

SECRET = encrypted_secret()
OTHER = encrypted_secret(name="other", keyRef={"name": "staging"})
GRANT = Grant("shop", "default", "prod")


class FakeQueue:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failures = 0

    def add(self, key: ObjectKey, lane: Lane = Lane.LIVE) -> None:
        self.calls.append(("add", key.name, lane))

    def add_after(self, key: ObjectKey, seconds: float) -> None:
        self.calls.append(("after", key.name, seconds))

    def retry(self, key: ObjectKey) -> int:
        self.calls.append(("retry", key.name))
        self.failures += 1
        return self.failures


class FakePermissionRoom:
    def __init__(self) -> None:
        self.waiting: dict[ObjectKey, Grant] = {}

    def enter(self, key: ObjectKey, grant: Grant, error: StrongroomError) -> None:
        assert error.reason is Reason.ACCESS_DENIED
        self.waiting[key] = grant

    def leave(self, key: ObjectKey) -> None:
        self.waiting.pop(key, None)


class Yard:
    def __init__(self, *, available: bool = False) -> None:
        self.queue = FakeQueue()
        self.permission = FakePermissionRoom()
        self.available = available
        self.parking = Parking(
            self.queue,  # type: ignore[arg-type]
            self.permission,  # type: ignore[arg-type]
            token_of=lambda key_name: (f"token-of-{key_name}", self.available),
        )

    def park(self, reason: Reason, secret: EncryptedSecret = SECRET) -> bool:
        """A try that failed, during which nothing else happened."""
        changes = self.parking.changes_of(secret.key_name)
        return self.parking.park(secret, StrongroomError(reason, "m"), changes=changes)

    def everything_happens(self) -> None:
        self.parking.key_changed("prod")
        self.parking.token_available("token-of-prod")


BACK = ("add", "db", Lane.BACKLOG)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.http_status >= 400])
def test_every_failure_waits_for_what_heals_it_and_for_nothing_else(reason: Reason) -> None:
    yard = Yard()
    yard.park(reason)
    pause = 60.0 if reason is Reason.TARGET_NOT_OWNED else 300.0
    before = {
        Healing.RETRY: [("retry", "db")],
        Healing.SECRET: [("after", "db", pause)],
    }.get(reason.healing, [])
    assert yard.queue.calls == before
    assert yard.permission.waiting == ({SECRET.key: GRANT} if reason.healing is Healing.PERMISSION else {})

    yard.parking.key_changed("staging")
    yard.parking.token_available("token-of-staging")
    assert yard.queue.calls == before
    yard.everything_happens()
    yard.everything_happens()
    released = {Healing.KEY: [BACK], Healing.TOKEN: [BACK, BACK]}.get(reason.healing, [])  # by each of them once
    assert yard.queue.calls == before + released
    assert yard.parking.is_released(SECRET.key) is bool(released)


def test_a_failure_of_another_kind_replaces_what_was_waited_for() -> None:
    yard = Yard()
    yard.park(Reason.ACCESS_DENIED)
    yard.park(Reason.HSM_UNAVAILABLE)
    assert yard.permission.waiting == {}
    yard.park(Reason.KEY_DISABLED)
    yard.parking.token_available("token-of-prod")
    assert yard.queue.calls == []
    yard.parking.key_changed("prod")
    assert yard.queue.calls == [BACK]


def test_who_left_is_not_released() -> None:
    yard = Yard()
    for reason in (Reason.KEY_DISABLED, Reason.HSM_UNAVAILABLE):
        yard.park(reason)
        yard.parking.leave(SECRET.key)
    yard.everything_happens()
    assert yard.queue.calls == []


def test_only_the_objects_of_the_changed_key_come_back() -> None:
    yard = Yard()
    yard.park(Reason.KEY_DISABLED)
    yard.park(Reason.KEY_DISABLED, OTHER)
    yard.parking.key_changed("staging")
    assert yard.queue.calls == [("add", "other", Lane.BACKLOG)]


def test_a_token_that_is_back_already_is_tried_again_and_status_keeps_quiet_at_first() -> None:
    yard = Yard(available=True)
    assert [yard.park(Reason.HSM_UNAVAILABLE) for _ in range(5)] == [True, True, True, False, False]
    assert yard.queue.calls == [("retry", "db")] * 5


def test_a_key_that_moved_to_another_token_is_tried_again_while_the_first_is_away() -> None:
    yard = Yard()
    yard.park(Reason.HSM_UNAVAILABLE)
    yard.parking.key_changed("prod")
    assert yard.queue.calls == [BACK]
    assert yard.parking.is_released(SECRET.key)


def test_being_released_lasts_until_the_object_is_judged_anew() -> None:
    """Asked twice, because a try in between may have ended in an error of the API server."""
    yard = Yard()
    for judged in (lambda: yard.parking.leave(SECRET.key), lambda: yard.park(Reason.INVALID_CIPHERTEXT)):
        yard.parking.release({SECRET.key})
        assert yard.parking.is_released(SECRET.key)
        assert yard.parking.is_released(SECRET.key)
        judged()
        assert not yard.parking.is_released(SECRET.key)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.healing is Healing.KEY])
def test_a_key_that_changed_during_the_try_is_not_waited_for(reason: Reason) -> None:
    yard = Yard()
    error = StrongroomError(reason, "m")
    quiet = []
    for _ in range(4):
        changes = yard.parking.changes_of("prod")
        yard.parking.key_changed("staging")  # another's change is none of its business
        yard.parking.key_changed("prod")
        quiet.append(yard.parking.park(SECRET, error, changes=changes))
    assert quiet == [True, True, True, False]
    assert yard.queue.calls == [("retry", "db")] * 4
    assert yard.park(reason) is False
    yard.parking.key_changed("prod")
    assert yard.queue.calls[4:] == [BACK]
