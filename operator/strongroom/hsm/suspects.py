# SPDX-License-Identifier: Apache-2.0
"""Requests that may be what ends the library's process: first isolated, then refused.

A single request can crash or hang a library. Tried again and again, as objects and clients do, it would take the token
from everybody each time. Which of the requests in flight it was, nothing tells. So:

    in flight when the process crashed or hung                   suspect: runs alone, in every session's stead
    the process crashed or hung twice while it ran alone         refused for 10 minutes
    answered, however                                            cleared

A process that ends for another reason makes suspects of the innocent, but their next try, alone, clears them. One is
refused wrongly only if the process is ended from outside three times, twice in the few milliseconds when it runs alone;
ten minutes later it is tried anew.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from enum import Enum, unique

from strongroom.hsm import wire

MEMORY_SECONDS = 600.0
"""How long a request is suspect or refused after the last loss it was part of."""
_LOSSES_ALONE = 2
"""One could be chance: a process that is killed again and again from outside is killed while something runs."""
_MAX_REMEMBERED = 4096
"""The oldest is forgotten beyond that. A loss adds as many as there are sessions, at most 64."""


@unique
class Standing(Enum):
    """What is known of a request."""

    CLEAR = "clear"
    SUSPECT = "suspect"
    REFUSED = "refused"


class Suspects:
    """Memory of one token's requests, by keyed digest: no request is kept. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[int, float]] = {}
        """Losses alone, and the time when it is forgotten; oldest first."""

    def digest(self, request: wire.Request) -> bytes:
        """What a request is known by: equal for equal requests. Raises wire.ProtocolError as `wire.encode` does."""
        frame = wire.encode(0, request)
        try:
            return hashlib.blake2b(frame, key=self._key).digest()
        finally:
            wire.wipe(frame)

    def standing(self, digest: bytes) -> Standing:
        """As of now."""
        if digest not in self._known:
            return Standing.CLEAR
        losses, until = self._known[digest]
        if self._clock() >= until:
            return Standing.CLEAR
        return Standing.REFUSED if losses >= _LOSSES_ALONE else Standing.SUSPECT

    def blame(self, digest: bytes, *, alone: bool) -> None:
        """It was in flight when the process crashed or hung; `alone`: as a suspect, with nothing beside it."""
        losses, until = self._known.pop(digest, (0, 0.0))
        if self._clock() >= until:
            losses = 0
        if len(self._known) >= _MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[digest] = (losses + alone, self._clock() + MEMORY_SECONDS)

    def clear(self, digest: bytes) -> None:
        """It was answered."""
        self._known.pop(digest, None)
