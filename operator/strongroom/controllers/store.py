# SPDX-License-Identifier: Apache-2.0
"""What is known of each object, from watches, lists and our own writes, whichever came last.

Resource versions are compared as integers (Kubernetes documents them as such since 1.35), so news that is older than
what is known is ignored wherever it comes from.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from strongroom.model.ids import ObjectKey


class Versioned(Protocol):
    """What a store keeps."""

    @property
    def key(self) -> ObjectKey:
        """Where the object lives."""

    @property
    def uid(self) -> str:
        """Which incarnation it is."""

    @property
    def resource_version(self) -> int:
        """How new it is."""


T = TypeVar("T", bound=Versioned)


class Store(Generic[T]):
    """Latest known state by key."""

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, T] = {}

    def get(self, key: ObjectKey) -> T | None:
        """The object, or None if there is none as far as we know."""
        return self._objects.get(key)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, item: T) -> bool:
        """Take in a state; True if it is news."""
        known = self._objects.get(item.key)
        if known is not None and known.resource_version >= item.resource_version:
            return False
        self._objects[item.key] = item
        return True

    def refresh(self, item: T) -> None:
        """Take in a state that was just read live, even if it is the version already known."""
        known = self._objects.get(item.key)
        if known is None or known.resource_version <= item.resource_version:
            self._objects[item.key] = item

    def remove(self, key: ObjectKey, resource_version: int) -> bool:
        """Take in a deletion that happened at `resource_version`; True if it is news."""
        known = self._objects.get(key)
        if known is None or known.resource_version > resource_version:
            return False
        del self._objects[key]
        return True

    def replace(self, items: Iterable[T], list_version: int) -> set[ObjectKey]:
        """Take in a complete list made at `list_version`; the keys of everything that changed, vanished included."""
        changed: set[ObjectKey] = set()
        listed: set[ObjectKey] = set()
        for item in items:
            listed.add(item.key)
            if self.put(item):
                changed.add(item.key)
        for key in [key for key in self._objects if key not in listed]:
            if self.remove(key, list_version):
                changed.add(key)
        return changed
