# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import Reason, StrongroomError
from strongroom.model.context import EncryptionContext


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="empty"),
        pytest.param({f"{n}": "" for n in range(16)}, id="16-pairs"),
        pytest.param({"k": "v" * 1023}, id="1024-bytes"),
        pytest.param({"é" * 256: "ü" * 256}, id="1024-bytes-in-two-byte-characters"),
        pytest.param({"\U0001f511" * 256: ""}, id="1024-bytes-in-four-byte-characters"),
        pytest.param({"key": ""}, id="empty-value"),
        pytest.param({"a\0b": "\n"}, id="control-characters"),
    ],
)
def test_a_context_within_the_limits_is_kept_whole(raw: Mapping[str, object] | None) -> None:
    assert EncryptionContext.parse(raw).as_dict() == (raw or {})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param({f"{n}": "" for n in range(17)}, "has 17 pairs, at most 16", id="17-pairs"),
        pytest.param({"k": "v" * 1024}, "is 1025 bytes, at most 1024", id="1025-bytes"),
        pytest.param({"k": "é" * 512}, "is 1025 bytes", id="counted-in-bytes-not-characters"),
        pytest.param({"": "value"}, "has an empty key", id="empty-key"),
        pytest.param({"port": 5432}, "not a string at key 'port'", id="number"),
        pytest.param({"on": True}, "not a string at key 'on'", id="boolean"),
        pytest.param({"none": None}, "not a string at key 'none'", id="null"),
        pytest.param({"nested": {"a": "b"}}, "not a string at key 'nested'", id="nested"),
        pytest.param({7: "seven"}, "has an empty key", id="key-not-a-string"),
        pytest.param({"\ud800": "v"}, "not valid Unicode", id="lone-surrogate-in-key"),
        pytest.param({"k": "\udfff"}, "not valid Unicode", id="lone-surrogate-in-value"),
    ],
)
def test_a_context_outside_the_limits_is_refused(raw: Mapping[str, object], message: str) -> None:
    with pytest.raises(StrongroomError, match=message) as caught:
        EncryptionContext.parse(raw)
    assert caught.value.reason is Reason.INVALID_ENCRYPTION_CONTEXT


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=16))
def test_pairs_are_sorted_by_the_utf_8_bytes_of_their_keys(raw: dict[str, str]) -> None:
    keys = [key.encode() for key, _ in EncryptionContext.parse(raw).pairs]
    assert keys == sorted(keys)
