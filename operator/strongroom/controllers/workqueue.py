# SPDX-License-Identifier: Apache-2.0
"""A keyed work queue: an object is in it once, has one worker at a time, and its latest state is what the worker sees.

Live changes go ahead of the start-up backlog; within each lane namespaces take turns, so that one with thousands of
objects does not hold up the others. Retries back off per object. Of one group, such as the objects of one token, only
so many are processed at a time: where that hangs, the other groups still have workers.
"""

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from enum import IntEnum, unique
from typing import Final

from strongroom.model.ids import ObjectKey

_log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.2
_LONGEST_RETRY_SECONDS: Final = 60.0


@unique
class Lane(IntEnum):
    """Order of service."""

    LIVE = 0
    BACKLOG = 1


class _FairLane:
    """Round robin over namespaces, first in first out within one."""

    def __init__(self) -> None:
        self._namespaces: OrderedDict[str, deque[ObjectKey]] = OrderedDict()

    def push(self, key: ObjectKey) -> None:
        self._namespaces.setdefault(key.namespace, deque()).append(key)

    def pop(self) -> ObjectKey | None:
        if not self._namespaces:
            return None
        namespace, keys = self._namespaces.popitem(last=False)
        key = keys.popleft()
        if keys:
            self._namespaces[namespace] = keys  # to the end of the turn
        return key


class _Group:
    """Keys that wait for the same thing outside, and how many of them are processed now."""

    def __init__(self) -> None:
        self.lanes = {lane: _FairLane() for lane in Lane}
        self.running = 0


class WorkQueue:
    """Runs `process(key)` for keys that were added, `workers` at a time. Belongs to one event loop.

    At most `group_limit` keys of one group, as `group_of` told when they were added, are processed at a time; without
    it, as many as there are workers. Groups take turns. A key added while it is processed is processed once more
    afterwards. `process` must not raise; if it does, the error is logged without its text and the key retried with
    backoff.
    """

    def __init__(
        self,
        process: Callable[[ObjectKey], Awaitable[None]],
        *,
        workers: int,
        on_depth: Callable[[int], None],
        group_of: Callable[[ObjectKey], str] = lambda key: "",
        group_limit: int | None = None,
    ) -> None:
        self._process = process
        self._group_of = group_of
        self._group_limit = group_limit or workers
        self._worker_count = workers
        self._on_depth = on_depth
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        """In order of their turns."""
        self._waiting: dict[ObjectKey, tuple[Lane, str]] = {}
        """Where the key's entry is; any other entry of it is a remnant."""
        self._running: set[ObjectKey] = set()
        self._again: dict[ObjectKey, Lane] = {}
        self._failures: dict[ObjectKey, int] = {}
        self._timers: dict[ObjectKey, asyncio.TimerHandle] = {}
        self._available = asyncio.Semaphore(0)
        """A permit for each entry that waits, but for those that are owed."""
        self._owed = 0
        """Permits taken by workers that found only groups with enough workers: given back as those end."""
        self._paused_until = 0.0

    def add(self, key: ObjectKey, lane: Lane = Lane.LIVE) -> None:
        """Process the key soon. A key that waits in the backlog moves ahead when it is added live."""
        if key in self._running:
            self._again[key] = min(lane, self._again.get(key, lane))
            return
        waiting = self._waiting.get(key)
        if waiting is not None and waiting[0] <= lane:
            return
        name = self._group_of(key)
        self._waiting[key] = lane, name
        self._groups.setdefault(name, _Group()).lanes[lane].push(key)
        self._on_depth(len(self._waiting))
        self._available.release()

    def add_after(self, key: ObjectKey, seconds: float) -> None:
        """Process the key after a delay, unless it is added before. An earlier timer of the key is replaced."""
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key, Lane.BACKLOG)

    def retry(self, key: ObjectKey, *, at_least: float = 0.0) -> int:
        """Process the key again with exponential backoff and jitter, at least `at_least` seconds from now.

        Returns how many times in a row it has failed.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(failures, 16))
        self.add_after(key, max(at_least, random.uniform(longest / 4, longest)))  # noqa: S311 - jitter, no secret
        return failures + 1

    def pause(self, seconds: float) -> None:
        """Begin nothing new for so long: whoever is asked has said that it is too much."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    def forget(self, key: ObjectKey) -> None:
        """The key succeeded or is gone: its backoff starts anew, its timer is dropped."""
        self._failures.pop(key, None)
        self._cancel_timer(key)

    async def run(self) -> None:
        """Process until cancelled; then the running ones are cancelled too, and processed first if run again."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._worker_count):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._available.acquire()
            try:
                await self._unpaused()
            except BaseException:
                self._available.release()  # the key is still to be taken
                raise
            taken = self._next()
            if taken is None:
                self._owed += bool(self._waiting)  # else it moved to the other lane; that entry has a permit of its own
                continue
            key, group = taken
            self._cancel_timer(key)
            group.running += 1
            self._running.add(key)
            try:
                await self._process(key)
            except asyncio.CancelledError:
                self._again[key] = Lane.LIVE  # not done: the next run begins with it
                this = asyncio.current_task()
                if this is not None and this.cancelling():
                    raise
            except Exception as error:
                _log.error("processing %s failed: %s", key, type(error).__name__, exc_info=_traceback_only(error))
                self.retry(key)
            finally:
                self._running.discard(key)
                group.running -= 1
                if self._owed:
                    self._owed -= 1
                    self._available.release()
                lane = self._again.pop(key, None)
                if lane is not None:
                    self.add(key, lane)

    async def _unpaused(self) -> None:
        """Return when the pause is over, each worker a little later, so that work grows again step by step."""
        left = self._paused_until - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left * random.uniform(1.0, 2.0))  # noqa: S311 - jitter, no secret

    def _next(self) -> tuple[ObjectKey, _Group] | None:
        for lane in Lane:
            for name, group in self._groups.items():
                if group.running >= self._group_limit:
                    continue
                while (key := group.lanes[lane].pop()) is not None:
                    if self._waiting.get(key) == (lane, name):
                        del self._waiting[key]
                        self._on_depth(len(self._waiting))
                        self._groups.move_to_end(name)
                        return key, group
        return None

    def _cancel_timer(self, key: ObjectKey) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()


def _traceback_only(error: BaseException) -> BaseException:
    """The error's place without its text: an unforeseen message may quote anything."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
