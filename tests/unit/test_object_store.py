# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controllers.store import Store
from strongroom.model.ids import ObjectKey


@dataclass(frozen=True)
class Thing:
    key: ObjectKey
    resource_version: int
    uid: str = "uid"
    content: str = ""


def key(name: str) -> ObjectKey:
    return ObjectKey("shop", name)


def thing(name: str, version: int, content: str = "") -> Thing:
    return Thing(key(name), version, content=content)


def store_of(*things: Thing) -> Store[Thing]:
    store: Store[Thing] = Store()
    for item in things:
        store.put(item)
    return store


@pytest.mark.parametrize(
    ("known", "arriving", "news"),
    [
        pytest.param(None, 5, True, id="unknown"),
        pytest.param(5, 6, True, id="newer"),
        pytest.param(5, 5, False, id="same"),
        pytest.param(5, 4, False, id="older"),
        pytest.param(9, 10, True, id="compared-as-numbers"),
    ],
)
def test_a_state_is_taken_in_only_if_it_is_newer(known: int | None, arriving: int, news: bool) -> None:
    store = store_of(*([thing("a", known, "known")] if known else []))
    assert store.put(thing("a", arriving, "arriving")) is news
    held = store.get(key("a"))
    assert held is not None
    assert held.content == ("arriving" if news else "known")


@pytest.mark.parametrize(("version", "content"), [(4, "known"), (5, "live"), (6, "live")])
def test_a_live_read_replaces_the_same_version_but_never_a_newer_one(version: int, content: str) -> None:
    store = store_of(thing("a", 5, "known"))
    store.refresh(thing("a", version, "live"))
    assert store.get(key("a")) == thing("a", max(version, 5), content)


@pytest.mark.parametrize(("deleted_at", "news"), [(4, False), (5, True), (6, True)])
def test_a_deletion_older_than_what_is_known_is_ignored(deleted_at: int, news: bool) -> None:
    store = store_of(thing("a", 5))
    assert store.remove(key("a"), deleted_at) is news
    assert (store.get(key("a")) is None) is news


def test_a_deletion_of_what_is_not_known_is_no_news() -> None:
    assert store_of().remove(key("a"), 5) is False


def test_a_complete_list_tells_what_changed_what_is_new_and_what_is_gone() -> None:
    store = store_of(thing("same", 1), thing("changed", 2), thing("gone", 3), thing("newer-than-the-list", 99))
    changed = store.replace([thing("same", 1), thing("changed", 8), thing("new", 9)], list_version=10)
    assert changed == {key("changed"), key("gone"), key("new")}
    assert {item.key.name for item in store} == {"same", "changed", "new", "newer-than-the-list"}
    assert len(store) == 4


def test_an_older_list_takes_nothing_back() -> None:
    store = store_of(thing("a", 20, "known"))
    assert store.replace([thing("a", 5, "old")], list_version=10) == set()
    assert store.get(key("a")) == thing("a", 20, "known")


@given(st.lists(st.integers(1, 50), min_size=1))
def test_versions_never_go_back_whatever_the_order_of_arrival(versions: list[int]) -> None:
    store = store_of()
    for version in versions:
        store.put(thing("a", version))
    held = store.get(key("a"))
    assert held is not None
    assert held.resource_version == max(versions)


def test_objects_may_be_taken_in_while_they_are_walked_through() -> None:
    store = store_of(thing("a", 1), thing("b", 1))
    for item in store:
        store.put(thing(item.key.name + "-copy", 1))
    assert len(store) == 4
