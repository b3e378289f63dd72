# SPDX-License-Identifier: Apache-2.0
"""CKA_ID and CKA_LABEL: what is written can be read, and nothing else is taken for ours."""

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.hsm.label import KeyLabel, pack_id, parse_id
from strongroom.model.ids import MAX_KEY_VERSION, KeyId, KeyVersion, KeyVersionRef

_LABELS = st.builds(
    KeyLabel,
    cluster=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    name=st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", fullmatch=True),
    version=st.integers(1, MAX_KEY_VERSION).map(KeyVersion),
    created_at=st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
)
_GOOD = KeyLabel("0123456789abcdef", "prod", KeyVersion(3), datetime(2026, 11, 23, 10, 15, tzinfo=UTC))


@given(_LABELS)
def test_a_label_is_read_back_as_it_was(label: KeyLabel) -> None:
    assert KeyLabel.parse(label.format()) == label
    assert len(label.format()) <= 120


@given(st.text())
def test_any_text_is_a_label_only_if_it_is_written_so(text: str) -> None:
    label = KeyLabel.parse(text)
    assert label is None or label.format() == text


def test_the_text_is_the_documented_one() -> None:
    assert _GOOD.format() == "strongroom/0123456789abcdef/prod/v3/20261123T101500Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "made elsewhere",
        "strongroom/0123456789ABCDEF/prod/v3/20261123T101500Z",
        "strongroom/0123456789abcde/prod/v3/20261123T101500Z",
        "strongroom/0123456789abcdef//v3/20261123T101500Z",
        "strongroom/0123456789abcdef/a/b/v3/20261123T101500Z",
        "strongroom/0123456789abcdef/Prod/v3/20261123T101500Z",
        "strongroom/0123456789abcdef/prod/v03/20261123T101500Z",
        "strongroom/0123456789abcdef/prod/v0/20261123T101500Z",
        "strongroom/0123456789abcdef/prod/v4294967296/20261123T101500Z",
        "strongroom/0123456789abcdef/prod/v3/20261323T101500Z",
        "strongroom/0123456789abcdef/prod/v3/20261123T101500Z\n",
        "strongroom/0123456789abcdef/prod/v٣/20261123T101500Z",
    ],
)
def test_another_text_is_not_ours(text: str) -> None:
    assert KeyLabel.parse(text) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"cluster": "0123"},
        {"name": "a/b"},
        {"name": ""},
        {"name": "a" * 64},
        {"version": 0},
        {"version": MAX_KEY_VERSION + 1},
        {"created_at": datetime(2026, 11, 23)},
        {"created_at": datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=1)))},
        {"created_at": datetime(2026, 11, 23, microsecond=1, tzinfo=UTC)},
    ],
)
def test_a_label_that_could_not_be_read_back_is_not_made(changed: dict[str, Any]) -> None:
    fields = {"cluster": _GOOD.cluster, "name": _GOOD.name, "version": _GOOD.version, "created_at": _GOOD.created_at}
    with pytest.raises(ValueError):
        KeyLabel(**{**fields, **changed})


@given(st.uuids(version=4), st.integers(1, MAX_KEY_VERSION))
def test_an_id_is_read_back_as_it_was(key_id: uuid.UUID, version: int) -> None:
    ref = KeyVersionRef(KeyId(key_id), KeyVersion(version))
    assert len(pack_id(ref)) == 20
    assert parse_id(pack_id(ref)) == ref


@pytest.mark.parametrize(
    "cka_id",
    [
        b"",
        b"\x01",
        uuid.uuid4().bytes,
        uuid.uuid4().bytes + bytes(4),
        uuid.uuid4().bytes + b"\0\0\0\1\0",
        uuid.uuid1().bytes + b"\0\0\0\1",
        bytes(16) + b"\0\0\0\1",
    ],
)
def test_another_id_is_not_ours(cka_id: bytes) -> None:
    assert parse_id(cka_id) is None
