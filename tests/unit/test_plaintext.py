# SPDX-License-Identifier: Apache-2.0
import copy
import json
import pickle

import pytest

from strongroom.model.plaintext import Plaintext

CANARY = b"canary-plaintext"


@pytest.mark.parametrize(
    "show",
    [repr, str, "{}".format, "%s".__mod__, lambda value: repr([value]), lambda value: repr({"a": (value,)})],
    ids=["repr", "str", "format", "percent", "in-a-list", "in-a-dict"],
)
def test_no_way_of_showing_a_plaintext_shows_it(show) -> None:  # type: ignore[no-untyped-def]
    shown = show(Plaintext(CANARY))
    assert "canary" not in shown
    assert "<Plaintext of 16 bytes>" in shown


@pytest.mark.parametrize(
    "leave",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, lambda value: pickle.dumps(value, protocol=0)],
    ids=["pickle", "copy", "deepcopy", "json", "pickle-0"],
)
def test_a_plaintext_is_not_serialised_or_copied(leave) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError) as caught:
        leave(Plaintext(CANARY))
    assert "canary" not in str(caught.value)


def test_plaintexts_have_no_attributes_and_do_not_compare_by_value() -> None:
    one, other = Plaintext(CANARY), Plaintext(CANARY)
    assert one != other
    assert not hasattr(one, "__dict__")


def test_wiping_overwrites_the_bytes_and_may_be_repeated() -> None:
    plaintext = Plaintext(CANARY)
    assert plaintext.reveal() == CANARY
    plaintext.wipe()
    plaintext.wipe()
    assert plaintext.reveal() == bytes(16)
    assert len(plaintext) == 16


def test_it_holds_a_copy_so_wiping_leaves_the_source_to_its_owner() -> None:
    source = bytearray(CANARY)
    plaintext = Plaintext(source)
    plaintext.wipe()
    assert source == CANARY
