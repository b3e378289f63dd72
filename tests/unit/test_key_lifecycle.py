# SPDX-License-Identifier: Apache-2.0
import uuid

import pytest

from strongroom.errors import Reason
from strongroom.hsm.api import KeyLabel, KeyMaterial
from strongroom.kms import lifecycle
from strongroom.kms.lifecycle import Generate, Publish, RecordIntent, Refuse
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.masterkey import MasterKey
from tests.unit.fakes import CLUSTER, CREATED_AT, KEY_ID, OTHER_KEY_ID, master_key

FOREIGN_CLUSTER = "f" * 16


def ref(version: int = 1, key_id: uuid.UUID = KEY_ID) -> KeyVersionRef:
    return KeyVersionRef(KeyId(key_id), KeyVersion(version))


def material(
    version: int = 1,
    key_id: uuid.UUID = KEY_ID,
    *,
    cluster: str = CLUSTER,
    name: str = "prod",
    marked: bool = True,
    spec: KeySpec = KeySpec.AES_256,
) -> KeyMaterial:
    label = KeyLabel(cluster, name, KeyVersion(version), CREATED_AT) if marked else None
    public_key = b"der" if spec.asymmetric else b""
    return KeyMaterial(ref(version, key_id), label, spec, public_key, never_extractable=True)


def aes_alone(spec: KeySpec) -> Algorithm | None:
    return Algorithm.AES_256_GCM if spec is KeySpec.AES_256 else None


def everything(spec: KeySpec) -> Algorithm | None:
    return Algorithm.RSA_OAEP_SHA1_AES_256_GCM if spec.asymmetric else Algorithm.AES_256_GCM


def nothing(_: KeySpec) -> Algorithm | None:
    return None


def published(*versions: int, **changes: object) -> MasterKey:
    states = dict.fromkeys(versions, "DecryptOnly") | {max(versions): "Primary"}
    return master_key(versions=states, **changes)


def new(**changes: object) -> MasterKey:
    return master_key(key_id=None, **changes)


ONE, TWO = material(1), material(2)
FOREIGN = material(cluster=FOREIGN_CLUSTER)
OTHER_NAME = material(name="staging")
UNMARKED = material(marked=False)
PENDING = {"pending": (1, KEY_ID)}
RSA_ONE = material(spec=KeySpec.RSA_3072)
RSA = {"key_spec": "RSA_3072", "algorithm": "RSA_OAEP_SHA1_AES_256_GCM"}


@pytest.mark.parametrize(
    ("key", "token", "step"),
    [
        # Nothing is known of it.
        pytest.param(new(), [], RecordIntent(), id="new-in-an-empty-token"),
        pytest.param(new(), [OTHER_NAME], RecordIntent(), id="new-beside-another-key"),
        pytest.param(new(), [UNMARKED], RecordIntent(), id="new-beside-unmarked-material"),
        pytest.param(new(), [ONE], Publish(KEY_ID, (ONE,), shared=False, adopted=True), id="made-again-finds-its-own"),
        pytest.param(
            new(), [TWO, ONE], Publish(KEY_ID, (ONE, TWO), shared=False, adopted=True), id="every-version-in-order"
        ),
        pytest.param(
            new(),
            [ONE, material(key_id=OTHER_KEY_ID, name="staging")],
            Publish(KEY_ID, (ONE,), shared=False, adopted=True),
            id="its-own-beside-another-key",
        ),
        # The intent is recorded.
        pytest.param(new(**PENDING), [], Generate(ref(), KeySpec.AES_256), id="pending-not-generated"),
        pytest.param(
            new(**PENDING), [ONE], Publish(KEY_ID, (ONE,), shared=False, adopted=False), id="pending-generated"
        ),
        pytest.param(
            new(**PENDING),
            [material(key_id=OTHER_KEY_ID)],
            Generate(ref(), KeySpec.AES_256),
            id="pending-beside-another-id",
        ),
        pytest.param(
            new(**PENDING, requested=OTHER_KEY_ID),
            [],
            Generate(ref(), KeySpec.AES_256),
            id="pending-goes-before-what-is-requested",
        ),
        # spec.keyId.
        pytest.param(
            new(requested=KEY_ID), [ONE], Publish(KEY_ID, (ONE,), shared=False, adopted=True), id="requested-own"
        ),
        pytest.param(
            new(requested=KEY_ID), [FOREIGN], Publish(KEY_ID, (FOREIGN,), shared=True, adopted=True), id="other-cluster"
        ),
        pytest.param(
            new(requested=KEY_ID),
            [OTHER_NAME],
            Publish(KEY_ID, (OTHER_NAME,), shared=True, adopted=True),
            id="other-name",
        ),
        pytest.param(
            new(requested=KEY_ID),
            [UNMARKED],
            Publish(KEY_ID, (UNMARKED,), shared=True, adopted=True),
            id="unmarked",
        ),
        pytest.param(
            new(requested=KEY_ID),
            [ONE, material(2, cluster=FOREIGN_CLUSTER)],
            Publish(KEY_ID, (ONE, material(2, cluster=FOREIGN_CLUSTER)), shared=True, adopted=True),
            id="one-foreign-version-makes-it-shared",
        ),
        # Published before.
        pytest.param(published(1), [ONE], Publish(KEY_ID, (ONE,), shared=False, adopted=False), id="published"),
        pytest.param(
            published(1), [ONE, TWO], Publish(KEY_ID, (ONE, TWO), shared=False, adopted=False), id="a-version-more"
        ),
        pytest.param(
            published(1),
            [ONE, material(2, cluster=FOREIGN_CLUSTER)],
            Publish(KEY_ID, (ONE,), shared=False, adopted=False),
            id="a-version-more-of-another-cluster",
        ),
        pytest.param(
            published(1),
            [ONE, material(2, name="staging")],
            Publish(KEY_ID, (ONE,), shared=False, adopted=False),
            id="a-version-more-of-another-name",
        ),
        pytest.param(
            published(1),
            [ONE, material(2, marked=False)],
            Publish(KEY_ID, (ONE,), shared=False, adopted=False),
            id="a-version-more-unmarked",
        ),
        pytest.param(
            published(1), [UNMARKED], Publish(KEY_ID, (UNMARKED,), shared=False, adopted=False), id="mark-was-removed"
        ),
        pytest.param(
            published(1, shared=True),
            [FOREIGN, material(2, cluster=FOREIGN_CLUSTER)],
            Publish(KEY_ID, (FOREIGN, material(2, cluster=FOREIGN_CLUSTER)), shared=True, adopted=False),
            id="shared-follows-its-owner",
        ),
        pytest.param(
            published(1, shared=True),
            [FOREIGN],
            Publish(KEY_ID, (FOREIGN,), shared=True, adopted=False),
            id="stays-shared",
        ),
    ],
)
def test_the_next_step_follows_from_object_and_token(key: MasterKey, token: list[KeyMaterial], step: object) -> None:
    assert lifecycle.plan(key, token, CLUSTER, aes_alone) == step


@pytest.mark.parametrize(
    ("key", "token", "reason", "words"),
    [
        pytest.param(new(key_spec="SM4"), [], Reason.UNSUPPORTED_FORMAT, ["'SM4'", "AES_256"], id="spec-unknown"),
        pytest.param(
            published(1, key_spec="SM4"), [ONE], Reason.UNSUPPORTED_FORMAT, ["'SM4'"], id="published-spec-unknown"
        ),
        pytest.param(
            new(), [FOREIGN], Reason.KEY_EXISTS, [str(KEY_ID), "spec.keyId"], id="name-taken-by-another-cluster"
        ),
        pytest.param(
            new(),
            [ONE, material(key_id=OTHER_KEY_ID)],
            Reason.KEY_EXISTS,
            [str(KEY_ID), str(OTHER_KEY_ID)],
            id="two-ids-of-our-own-under-one-name",
        ),
        pytest.param(new(), [ONE, ONE], Reason.KEY_CONFLICT, ["2 objects", "version 1"], id="own-twins"),
        pytest.param(new(), [ONE, UNMARKED], Reason.KEY_CONFLICT, ["2 objects"], id="own-with-an-unmarked-twin"),
        pytest.param(new(**PENDING), [ONE, ONE], Reason.KEY_CONFLICT, ["2 objects"], id="pending-twins"),
        pytest.param(
            new(**PENDING), [OTHER_NAME, ONE], Reason.KEY_CONFLICT, ["2 objects"], id="pending-twin-of-another-label"
        ),
        pytest.param(new(requested=KEY_ID), [], Reason.KEY_NOT_FOUND, [str(KEY_ID)], id="requested-missing"),
        pytest.param(
            new(requested=KEY_ID),
            [material(key_id=OTHER_KEY_ID)],
            Reason.KEY_NOT_FOUND,
            [str(KEY_ID)],
            id="requested-missing-own-present",
        ),
        pytest.param(new(requested=KEY_ID), [ONE, FOREIGN], Reason.KEY_CONFLICT, ["2 objects"], id="requested-twins"),
        pytest.param(published(1), [], Reason.KEY_VERSION_NOT_FOUND, ["version 1", "Restore"], id="published-missing"),
        pytest.param(
            published(1, 2, 3), [TWO], Reason.KEY_VERSION_NOT_FOUND, ["version 1, 3"], id="some-versions-missing"
        ),
        pytest.param(
            published(1, 2),
            [ONE, TWO, TWO, TWO],
            Reason.KEY_CONFLICT,
            ["3 objects", "version 2"],
            id="published-triplets",
        ),
        pytest.param(published(1), [ONE, ONE], Reason.KEY_CONFLICT, ["none of them is used"], id="published-twins"),
        pytest.param(
            published(1), [ONE, FOREIGN], Reason.KEY_CONFLICT, ["none of them is used"], id="published-foreign-twin"
        ),
        pytest.param(
            new(**RSA), [ONE], Reason.INVALID_KEY_USAGE, ["AES_256", "RSA_3072"], id="own-material-of-another-spec"
        ),
        pytest.param(
            new(requested=KEY_ID), [RSA_ONE], Reason.INVALID_KEY_USAGE, ["RSA_3072"], id="requested-of-another-spec"
        ),
        pytest.param(new(**PENDING), [RSA_ONE], Reason.INVALID_KEY_USAGE, [str(KEY_ID)], id="pending-of-another-spec"),
        pytest.param(
            published(1, **RSA),
            [material(spec=KeySpec.RSA_4096)],
            Reason.INVALID_KEY_USAGE,
            ["RSA_4096"],
            id="published-of-another-modulus",
        ),
        pytest.param(
            new(key_spec="RSA_3072"), [ONE, RSA_ONE], Reason.KEY_CONFLICT, ["2 objects"], id="twins-of-two-specs"
        ),
        pytest.param(
            published(1, algorithm="SM4_GCM"),
            [ONE],
            Reason.UNSUPPORTED_FORMAT,
            ["version 1", "Upgrade"],
            id="published-algorithm-unknown",
        ),
        pytest.param(
            published(1, key_spec="RSA_3072", algorithm="AES_256_GCM"),
            [RSA_ONE],
            Reason.UNSUPPORTED_FORMAT,
            ["RSA_3072"],
            id="published-algorithm-of-another-spec",
        ),
        pytest.param(
            new(state="Frozen"), [], Reason.UNSUPPORTED_FORMAT, ["spec.state", "Archived"], id="state-unknown"
        ),
        pytest.param(
            published(1, state="Frozen"), [ONE], Reason.UNSUPPORTED_FORMAT, ["spec.state"], id="published-state-unknown"
        ),
    ],
)
def test_what_needs_someone_is_refused_with_what_to_do(
    key: MasterKey, token: list[KeyMaterial], reason: Reason, words: list[str]
) -> None:
    step = lifecycle.plan(key, token, CLUSTER, everything)
    assert isinstance(step, Refuse)
    assert step.error.reason is reason
    assert [word for word in words if word not in str(step.error)] == []
    assert step.error.hint


def test_nothing_is_ever_generated_in_the_place_of_what_was_published() -> None:
    for token in ([], [FOREIGN, FOREIGN], [material(key_id=OTHER_KEY_ID)]):
        assert isinstance(lifecycle.plan(published(1), token, CLUSTER, everything), Refuse)


@pytest.mark.parametrize(
    ("key", "token", "step"),
    [
        pytest.param(new(**RSA), [], RecordIntent(), id="new"),
        pytest.param(new(**RSA, **PENDING), [], Generate(ref(), KeySpec.RSA_3072), id="pending"),
        pytest.param(
            new(**RSA), [RSA_ONE], Publish(KEY_ID, (RSA_ONE,), shared=False, adopted=True), id="finds-its-own"
        ),
        pytest.param(
            published(1, **RSA), [RSA_ONE], Publish(KEY_ID, (RSA_ONE,), shared=False, adopted=False), id="published"
        ),
    ],
)
def test_an_rsa_key_goes_the_same_way(key: MasterKey, token: list[KeyMaterial], step: object) -> None:
    assert lifecycle.plan(key, token, CLUSTER, everything) == step


@pytest.mark.parametrize(
    ("key", "token"),
    [
        pytest.param(new(**RSA), [], id="new"),
        pytest.param(new(**RSA, **PENDING), [], id="pending"),
        pytest.param(new(**RSA, **PENDING), [RSA_ONE], id="pending-generated"),
        pytest.param(new(**RSA), [RSA_ONE], id="its-own"),
        pytest.param(new(**RSA, requested=KEY_ID), [RSA_ONE], id="requested"),
        pytest.param(published(1, **RSA), [RSA_ONE, material(2, spec=KeySpec.RSA_3072)], id="a-version-more"),
    ],
)
def test_a_token_without_such_keys_gets_none_and_adopts_none(key: MasterKey, token: list[KeyMaterial]) -> None:
    step = lifecycle.plan(key, token, CLUSTER, aes_alone)
    assert isinstance(step, Refuse)
    assert step.error.reason is Reason.INVALID_KEY_USAGE
    assert all(word in str(step.error) for word in ("'default'", "RSA_3072", "profile"))


def test_what_is_published_stays_whatever_becomes_of_the_profile() -> None:
    assert lifecycle.plan(published(1, **RSA), [RSA_ONE], CLUSTER, nothing) == Publish(
        KEY_ID, (RSA_ONE,), shared=False, adopted=False
    )
