# SPDX-License-Identifier: Apache-2.0
"""The PIN file, and the memory of PINs the token did not take.

HSMs lock after a few wrong PINs, often for good. So a refused PIN is never tried again, however often workers are
replaced: only another content of the file is, unless that was refused before, too.

A login that got no answer, because the library crashed or hung in it, says nothing of the PIN, but the token may have
counted it as a wrong one. So three such logins with one PIN are as quick as any other attempt, and then there are 10,
20, 40 and from then on 60 minutes between two: a network that was away heals by itself, and a token that locks after
ten wrong PINs is not locked in an afternoon by one that nobody has seen refused. A login that works ends the count.
"""

import hashlib
import math
import os
import secrets
import stat
import time
from collections import Counter
from collections.abc import Callable

from strongroom.errors import StrongroomError
from strongroom.hsm import wire

_MAX_PIN_BYTES = 255

_QUICK_LOGINS = 3
"""Logins with one PIN that may go unanswered before the next is put off; tokens lock after 3 to 10 wrong ones."""
_FIRST_PAUSE_SECONDS = 600.0
_LONGEST_PAUSE_SECONDS = 3600.0


class PinFileError(Exception):
    """The file cannot be used. `message` says why, `hint` what to do; neither holds any of its content."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PinFile:
    """Reads the PIN when it is needed and keeps none."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> bytearray:
        """The PIN without its trailing newline; the caller wipes it. Blocks. Raises PinFileError.

        The file must not be open to others. Its group may read it: so kubelet projects a Secret for `fsGroup`.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise PinFileError(
                f"PIN file {self._path} cannot be opened: {error.strerror}", "Mount the Secret that holds the PIN"
            ) from None
        try:
            return self._read(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> bytearray:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise PinFileError(f"PIN file {self._path} is no regular file", "Point pinFile at the mounted PIN")
        if mode & stat.S_IRWXO:
            raise PinFileError(
                f"PIN file {self._path} is open to everyone (mode {stat.S_IMODE(mode):04o})",
                f"Run 'chmod o= {self._path}', or set defaultMode: 0440 on the volume",
            )
        pin = bytearray(_MAX_PIN_BYTES + 3)
        try:
            length = os.readv(descriptor, [pin])
        except OSError as error:
            raise PinFileError(
                f"PIN file {self._path} cannot be read: {error.strerror}", "Check the volume that holds the PIN"
            ) from None
        while length and pin[length - 1] in b"\r\n":
            length -= 1
        if not 0 < length <= _MAX_PIN_BYTES:
            wire.wipe(pin)
            raise PinFileError(
                f"PIN file {self._path} is empty or holds more than {_MAX_PIN_BYTES} bytes",
                "Write the user PIN into it and nothing else",
            )
        trimmed = pin[:length]
        wire.wipe(pin)
        return trimmed


class PinMemory:
    """What became of the PINs that were tried. Keeps keyed digests of them, one for each that an administrator wrote
    into the file, until the operator ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._refusals: dict[bytes, tuple[float, StrongroomError]] = {}
        """Each with the time from which the PIN may be tried again."""
        self._unclear: Counter[bytes] = Counter()

    def refuse(self, pin: bytearray, problem: StrongroomError, seconds: float = math.inf) -> None:
        """This PIN is not to be tried for so long, because of this problem."""
        self._refusals[self._digest(pin)] = (self._clock() + seconds, problem)

    def refusal(self, pin: bytearray) -> StrongroomError | None:
        """Why this PIN is not to be tried now; None if it may be."""
        until, problem = self._refusals.get(self._digest(pin), (-math.inf, None))
        return problem if self._clock() < until else None

    def accept(self, pin: bytearray) -> None:
        """The token took this PIN."""
        self._unclear.pop(self._digest(pin), None)

    def count_unclear(self, pin: bytearray, *, answered: bool) -> float:
        """A login with this PIN got no answer, or one that says nothing of the PIN. For how many seconds it is not to
        be tried now; 0: no longer than anything else. One that was answered is put off at once: the token got as far
        as looking at it."""
        digest = self._digest(pin)
        self._unclear[digest] = max(self._unclear[digest] + 1, _QUICK_LOGINS if answered else 0)
        times = self._unclear[digest]
        if times < _QUICK_LOGINS:
            return 0.0
        return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(times - _QUICK_LOGINS, 16), _LONGEST_PAUSE_SECONDS)

    def _digest(self, pin: bytearray) -> bytes:
        return hashlib.blake2b(pin, key=self._key).digest()
