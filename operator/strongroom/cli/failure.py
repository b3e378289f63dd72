# SPDX-License-Identifier: Apache-2.0
"""A failure of a command, and the place in the user's input it belongs to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from strongroom.errors import Reason, StrongroomError


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the input something stands; empty parts are left out of the text.

    `document` counts the documents of a file from 1, `item` the items of a List from 1.
    """

    file: str = ""
    document: int = 0
    item: int = 0
    subject: str = ""
    """`Kind namespace/name`."""
    data_key: str = ""

    def __str__(self) -> str:
        parts = (
            self.file,
            f"document {self.document}" if self.document else "",
            f"item {self.item}" if self.item else "",
            self.subject,
            f"data key {self.data_key}" if self.data_key else "",
        )
        return ": ".join(part for part in parts if part)

    def at(self, data_key: str) -> "Place":
        """One value of this object."""
        return replace(self, data_key=data_key)


class CommandError(StrongroomError):
    """A failure with its place. `cause` is the word shown; it differs from the reason only when the server sent a
    reason that this version does not know."""

    def __init__(
        self, reason: Reason, message: str, *, hint: str = "", place: Place | None = None, cause: str = ""
    ) -> None:
        super().__init__(reason, message, hint=hint)
        self.place = place or Place()
        self.cause = cause or reason.value


def invalid(message: str, *, hint: str, place: Place | None = None) -> CommandError:
    """The input is not what it should be."""
    return CommandError(Reason.INVALID_REQUEST, message, hint=hint, place=place)


@contextmanager
def located(place: Place) -> Iterator[None]:
    """Give failures raised inside the place they belong to, unless they know a closer one."""
    try:
        yield
    except StrongroomError as error:
        if isinstance(error, CommandError) and str(error.place):
            raise
        cause = error.cause if isinstance(error, CommandError) else ""
        raise CommandError(error.reason, error.message, hint=error.hint, place=place, cause=cause) from None
