# SPDX-License-Identifier: Apache-2.0
"""Whatever the body is: a request, or a refusal of ours. Never another exception."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strongroom.apiserver import wire
from strongroom.apiserver.wire import DecryptRequest, EncryptRequest, FieldValidation
from strongroom.errors import StrongroomError
from tests.apiserver.harness import decrypt_request, encrypt_request

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
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
