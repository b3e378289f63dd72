# SPDX-License-Identifier: Apache-2.0
"""Objects that wait for something to change, kept by what they wait for, so that one change releases exactly them.

Waiting costs nothing: no retries, no reviews but one per (namespace, account, key), no writes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from strongroom.errors import StrongroomError
from strongroom.model.ids import ObjectKey

_log = logging.getLogger(__name__)

_FIRST_REVIEW_SECONDS: Final = 1.0
_LONGEST_REVIEW_SECONDS: Final = 30.0
"""A permission granted later heals within 60 s, the review's own time and the backlog included."""
STALLED_AFTER_SECONDS: Final = 60.0
"""A denial is `Reconciling` this long (grants often arrive with the object), then `Stalled`."""

T = TypeVar("T")


class WaitingRoom(Generic[T]):
    """Objects by what they wait for: a key's name, a token's name."""

    def __init__(self) -> None:
        self._by_subject: dict[T, set[ObjectKey]] = {}
        self._subject_of: dict[ObjectKey, T] = {}

    def enter(self, key: ObjectKey, subject: T) -> None:
        """The object waits for the subject, and for nothing else in this room."""
        self.leave(key)
        self._by_subject.setdefault(subject, set()).add(key)
        self._subject_of[key] = subject

    def leave(self, key: ObjectKey) -> None:
        """The object waits no more; harmless if it did not."""
        subject = self._subject_of.pop(key, None)
        if subject is None:
            return
        waiting = self._by_subject[subject]
        waiting.discard(key)
        if not waiting:
            del self._by_subject[subject]

    def release(self, subject: T) -> set[ObjectKey]:
        """Everything that waited for the subject; it waits no more."""
        keys = self._by_subject.pop(subject, set())
        for key in keys:
            del self._subject_of[key]
        return keys

    def waiting_for(self, subject: T) -> set[ObjectKey]:
        """Everything that waits for the subject."""
        return set(self._by_subject.get(subject, ()))

    def subject_of(self, key: ObjectKey) -> T | None:
        """What the object waits for."""
        return self._subject_of.get(key)


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission that may or may not be there: a namespace's ServiceAccount on a key."""

    namespace: str
    service_account: str
    key_name: str


@dataclass(slots=True)
class _Denial:
    error: StrongroomError
    since: float
    task: asyncio.Task[None] | None = None


class PermissionRoom:
    """Objects that RBAC denied. One review per grant, 1 s apart at first, then up to 30 s; a yes releases them all.

    `review` asks whether the grant is there now; `release` gets the objects on a yes, `remind` gets them once after
    STALLED_AFTER_SECONDS so that their status can say so.
    """

    def __init__(
        self,
        *,
        review: Callable[[Grant], Awaitable[bool]],
        release: Callable[[set[ObjectKey]], None],
        remind: Callable[[set[ObjectKey]], None],
    ) -> None:
        self._review = review
        self._release = release
        self._remind = remind
        self._room: WaitingRoom[Grant] = WaitingRoom()
        self._denials: dict[Grant, _Denial] = {}

    def enter(self, key: ObjectKey, grant: Grant, error: StrongroomError) -> None:
        """The object was denied, with this error."""
        self._room.enter(key, grant)
        if grant not in self._denials:
            denial = _Denial(error, time.monotonic())
            self._denials[grant] = denial
            denial.task = asyncio.create_task(self._ask_until_granted(grant, denial))

    def leave(self, key: ObjectKey) -> None:
        """The object waits no more; harmless if it did not."""
        self._room.leave(key)

    def standing(self, key: ObjectKey, grant: Grant) -> StrongroomError | None:
        """The denial that the object waits under; None if it does not wait for this grant."""
        denial = self._denials.get(grant)
        return denial.error if denial and self._room.subject_of(key) == grant else None

    def stalled(self, grant: Grant) -> bool:
        """Whether the grant has been missing so long that only someone's doing will help."""
        denial = self._denials.get(grant)
        return denial is not None and time.monotonic() - denial.since >= STALLED_AFTER_SECONDS

    async def close(self) -> None:
        """Stop asking."""
        tasks = [denial.task for denial in self._denials.values() if denial.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_until_granted(self, grant: Grant, denial: _Denial) -> None:
        pause, stalled = _FIRST_REVIEW_SECONDS, False
        while self._room.waiting_for(grant):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_REVIEW_SECONDS)
            try:
                granted = await self._review(grant)
            except StrongroomError as error:
                _log.info("a permission could not be reviewed: %s", error)
                continue
            except Exception as error:  # whatever it is, the objects that wait must not be forgotten
                _log.error("a permission could not be reviewed: %s", type(error).__name__)
                continue
            if granted:
                break
            if not stalled and time.monotonic() - denial.since >= STALLED_AFTER_SECONDS:
                stalled = True
                self._remind(self._room.waiting_for(grant))
        del self._denials[grant]
        self._release(self._room.release(grant))
