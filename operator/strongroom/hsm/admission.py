# SPDX-License-Identifier: Apache-2.0
"""Who gets a session next: permits, in fair shares, with bounded waiting."""

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from strongroom.hsm.values import Share

MAX_WAITING = 512
"""Requests of one share that may wait; more are refused rather than kept with their plaintexts."""


class QueueFull(Exception):
    """So many of the share wait already."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests wait already")
        self.waiting = waiting


class Admission:
    """As many permits as there are sessions. Belongs to one event loop; knows no time.

    - Nothing is kept idle: a permit that the other share does not ask for is anyone's.
    - The next permit goes to the waiting share that holds the fewest; of two that hold as many, to whose first has
      waited longest. Within a share, first come, first served.
    - `acquire_all` waits in its share's line like any other. When its turn has come nobody else is let in until it has
      had everything to itself.
    - A caller that is cancelled while it waits holds nothing afterwards, and keeps nobody else waiting.
    """

    def __init__(self, permits: int) -> None:
        self._permits = permits
        self._held = dict.fromkeys(Share, 0)
        self._lines: dict[Share, deque[_Waiter]] = {share: deque() for share in Share}
        self._arrivals = itertools.count()
        self._alone = False
        """Whether what is held is held by `acquire_all`."""

    @property
    def permits(self) -> int:
        """How many there are."""
        return self._permits

    @property
    def held(self) -> Mapping[Share, int]:
        """Permits that are held now; everything at once counts as one."""
        return MappingProxyType(self._held)

    @property
    def waiting(self) -> Mapping[Share, int]:
        """Requests that wait now."""
        return {share: len(line) for share, line in self._lines.items()}

    def resize(self, permits: int) -> None:
        """From now on there are so many, at least 1. What is held beyond that is taken back as it is released."""
        if permits < 1:
            raise ValueError("at least one permit is needed")
        self._permits = permits
        self._admit()

    async def acquire(self, share: Share) -> None:
        """Hold one permit until `release`. Raises QueueFull at once if 512 of this share wait."""
        await self._wait(share, alone=False)

    async def acquire_all(self, share: Share) -> None:
        """Hold all there are, and all that `resize` adds, until `release`. Raises QueueFull as `acquire` does."""
        await self._wait(share, alone=True)

    def release(self, share: Share) -> None:
        """Give back what one `acquire` or `acquire_all` of this share got."""
        if not self._held[share]:
            raise ValueError("nothing is held by this share")
        self._held[share] -= 1
        self._alone = False  # whoever holds everything is the only one that can release
        self._admit()

    async def _wait(self, share: Share, *, alone: bool) -> None:
        line = self._lines[share]
        if len(line) >= MAX_WAITING:
            raise QueueFull(len(line))
        waiter = _Waiter(next(self._arrivals), alone)
        line.append(waiter)
        self._admit()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if not waiter.admitted.cancelled():  # admitted, and cancelled before it could run
                self.release(share)
            elif waiter in line:
                line.remove(waiter)
                self._admit()  # it may have been its turn
            raise

    def _admit(self) -> None:
        """Let in whoever may go now."""
        while (share := self._next()) is not None:
            waiter = self._lines[share][0]
            held = sum(self._held.values())
            if self._alone or held >= (1 if waiter.alone else self._permits):
                return
            self._lines[share].popleft()
            self._held[share] += 1
            self._alone = waiter.alone
            waiter.admitted.set_result(None)

    def _next(self) -> Share | None:
        """The share whose turn it is; None: nobody waits."""
        for line in self._lines.values():
            while line and line[0].admitted.cancelled():  # it has not run yet to leave the line by itself
                line.popleft()
        asking = [share for share, line in self._lines.items() if line]
        return min(asking, key=lambda share: (self._held[share], self._lines[share][0].arrival), default=None)


class _Waiter:
    __slots__ = ("admitted", "alone", "arrival")

    def __init__(self, arrival: int, alone: bool) -> None:
        self.arrival = arrival
        self.alone = alone
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
