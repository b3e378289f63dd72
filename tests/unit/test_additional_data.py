# SPDX-License-Identifier: Apache-2.0
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.envelope.aad import additional_data
from strongroom.envelope.format import pack_header
from strongroom.model.algorithms import Algorithm
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef

HEADER = pack_header(Algorithm.AES_256_GCM, KeyVersionRef(KeyId(uuid.UUID(int=1)), KeyVersion(1)))
USUAL = Binding(Purpose.SECRET, Scope.STRICT, "shop", "db", "password", EncryptionContext.parse({"team": "payments"}))

# Few letters, so that borders between pieces shift often.
words = st.text(alphabet="ab", max_size=3)
bindings = st.builds(
    Binding,
    purpose=st.sampled_from(Purpose),
    scope=st.sampled_from(Scope),
    namespace=words,
    name=words,
    data_key=words,
    context=st.dictionaries(words.filter(bool), words, max_size=3).map(EncryptionContext.parse),
)


def covered(binding: Binding) -> tuple[object, ...]:
    return (binding.purpose, binding.scope, *binding.place, binding.data_key, binding.context)


@given(bindings, bindings)
def test_two_bindings_have_the_same_additional_data_only_if_they_cover_the_same(one: Binding, other: Binding) -> None:
    same = additional_data(HEADER, one) == additional_data(HEADER, other)
    assert same == (covered(one) == covered(other))


@given(bindings, st.binary(max_size=40), st.binary(max_size=40))
def test_the_header_is_covered(binding: Binding, one: bytes, other: bytes) -> None:
    assert (additional_data(one, binding) == additional_data(other, binding)) == (one == other)


@pytest.mark.parametrize(
    ("scope", "changes", "same"),
    [
        pytest.param(Scope.STRICT, {"namespace": "web"}, False, id="strict-binds-the-namespace"),
        pytest.param(Scope.STRICT, {"name": "cache"}, False, id="strict-binds-the-name"),
        pytest.param(Scope.NAMESPACE, {"namespace": "web"}, False, id="namespace-binds-the-namespace"),
        pytest.param(Scope.NAMESPACE, {"name": "cache"}, True, id="namespace-leaves-the-name"),
        pytest.param(Scope.CLUSTER, {"namespace": "web", "name": "cache"}, True, id="cluster-leaves-both"),
        pytest.param(Scope.CLUSTER, {"data_key": "username"}, False, id="cluster-binds-the-data-key"),
        pytest.param(Scope.CLUSTER, {"context": EncryptionContext()}, False, id="cluster-binds-the-context"),
        pytest.param(Scope.CLUSTER, {"purpose": Purpose.FILE}, False, id="cluster-binds-the-purpose"),
        pytest.param(Scope.NAMESPACE, {"scope": Scope.CLUSTER}, False, id="a-scope-cannot-be-widened"),
    ],
)
def test_a_scope_decides_what_is_bound(scope: Scope, changes: dict[str, object], same: bool) -> None:
    binding = replace(USUAL, scope=scope)
    moved = replace(binding, **changes)  # type: ignore[arg-type]
    assert (additional_data(HEADER, binding) == additional_data(HEADER, moved)) is same


def test_the_order_in_which_a_context_is_written_does_not_matter() -> None:
    pairs = {"b": "2", "a": "1", "\U0001f511": "3", "\uff5e": "4"}
    turned = dict(reversed(pairs.items()))
    one = replace(USUAL, context=EncryptionContext.parse(pairs))
    other = replace(USUAL, context=EncryptionContext.parse(turned))
    assert additional_data(HEADER, one) == additional_data(HEADER, other)


def test_the_largest_additional_data_stays_under_what_a_token_takes() -> None:
    context = EncryptionContext.parse({f"{n:02}": "v" * 62 for n in range(16)})
    largest = Binding(Purpose.DATA_KEY, Scope.STRICT, "n" * 63, "m" * 253, "k" * 253, context)
    assert 1 <= len(additional_data(HEADER, largest)) <= 4096
