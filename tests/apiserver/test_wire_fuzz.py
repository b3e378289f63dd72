# SPDX-License-Identifier: Apache-2.0
"""Whatever the body is: a request, or a refusal of ours. Never another exception."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.apiserver import wire
from strongroom.apiserver.wire import DecryptRequest, EncryptRequest, FieldValidation
from strongroom.errors import Reason, StrongroomError
from tests.apiserver.harness import decrypt_request, encrypt_request

_TEXT = st.text(st.characters())  # with lone surrogates
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=10,
)
_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
_SPEC_FIELDS = ("scope", "name", "encryptionContext", "values", "encryptedData", "recipientPublicKey")


def _judge(body: bytes) -> None:
    kinds: list[tuple[Any, str]] = [(EncryptRequest, "values"), (DecryptRequest, "encrypted_data")]
    for kind, field in kinds:
        try:
            request, _ = wire.decode(body, kind, namespace="shop", validation=FieldValidation.WARN)
            values = getattr(request.spec, field)
            bindings = wire.bindings(request.spec, values, field="spec.values", namespace="shop")
            for text in values.values():
                wire.plaintext(text, where="spec.values")
        except StrongroomError as error:
            str(error).encode()  # fails for a text that cannot be sent
        else:
            assert 1 <= len(bindings) <= 64


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    _judge(body)


@given(_JSON)
def test_any_document(document: Any) -> None:
    _judge(json.dumps(document).encode())


@given(st.sampled_from([encrypt_request, decrypt_request]), st.sampled_from(_FIELDS + _SPEC_FIELDS), _JSON)
def test_any_field_of_a_good_request_replaced(make: Any, field: str, value: Any) -> None:
    request = make(**{field: value}) if field in _SPEC_FIELDS else make() | {field: value}
    _judge(json.dumps(request).encode())


_HALF = "\ud800"


@pytest.mark.parametrize(
    "request_with_half",
    [
        pytest.param(encrypt_request() | {_HALF: 1}, id="field"),
        pytest.param(encrypt_request(**{_HALF: 1}), id="field-of-spec"),
        pytest.param(encrypt_request(values={_HALF: ""}), id="data-key"),
        pytest.param(encrypt_request(name=f"a{_HALF}"), id="name"),
        pytest.param(encrypt_request(encryptionContext={"a": _HALF}), id="context"),
        pytest.param(encrypt_request() | {"metadata": {"labels": [_HALF]}}, id="metadata"),
        pytest.param(_HALF, id="document"),
    ],
)
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(request_with_half: Any) -> None:
    with pytest.raises(StrongroomError, match="half of a surrogate pair") as refused:
        wire.decode(
            json.dumps(request_with_half).encode(), EncryptRequest, namespace="shop", validation=FieldValidation.WARN
        )
    assert refused.value.reason is Reason.INVALID_REQUEST


def test_a_whole_surrogate_pair_is_a_character() -> None:
    body = json.dumps(encrypt_request(encryptionContext={"team": "\N{GRINNING FACE}"})).encode()
    assert b"\\ud83d\\ude00" in body

    request, _ = wire.decode(body, EncryptRequest, namespace="shop", validation=FieldValidation.STRICT)
    assert request.spec.encryption_context == {"team": "\N{GRINNING FACE}"}
