# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.model import encryptedsecret, masterkey
from strongroom.model.algorithms import Algorithm
from strongroom.model.binding import Purpose, Scope
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import KeyVersion, ObjectKey
from strongroom.model.keys import KeyState
from tests.unit.fakes import KEY_ID, OTHER_KEY_ID, encrypted_secret, encrypted_secret_body, master_key, master_key_body

# CustomerMasterKey


def test_a_published_key_reads_back() -> None:
    key = master_key(versions={1: "DecryptOnly", 2: "Primary"}, resource_version=42)
    assert (key.key, key.resource_version, key.hsm) == (ObjectKey("", "prod"), 42, "default")
    assert (key.key_id, key.primary, key.state) == (KEY_ID, 2, KeyState.ENABLED)
    assert key.has_version(KeyVersion(1))
    assert not key.has_version(KeyVersion(3))
    assert key.version_ref(KeyVersion(2)).key_id == KEY_ID


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        pytest.param({"key_id": None}, KeyState.CREATING, id="no-id-yet"),
        pytest.param({"versions": {}}, KeyState.CREATING, id="no-version-yet"),
        pytest.param({"versions": {1: "DecryptOnly"}}, KeyState.CREATING, id="no-primary"),
        pytest.param({"key_id": None, "state": "Disabled"}, KeyState.CREATING, id="disabled-before-created"),
        pytest.param({"state": "Disabled"}, KeyState.DISABLED, id="disabled"),
        pytest.param({"state": "Archived"}, KeyState.ARCHIVED, id="archived"),
    ],
)
def test_the_state_that_holds_follows_from_spec_and_facts(changes: dict[str, Any], state: KeyState) -> None:
    assert master_key(**changes).state is state


def test_intent_and_adoption_are_read() -> None:
    key = master_key(key_id=None, pending=(1, OTHER_KEY_ID), requested=KEY_ID, shared=True)
    assert key.pending is not None
    assert (key.pending.key_id, key.pending.version) == (OTHER_KEY_ID, 1)
    assert (key.requested_key_id, key.shared) == (KEY_ID, True)


def test_an_unknown_key_spec_is_kept_as_written_and_not_supported() -> None:
    assert not master_key(key_spec="ML_KEM_768").supported
    assert master_key().supported


@pytest.mark.parametrize(
    ("key_spec", "name", "algorithm"),
    [
        pytest.param("AES_256", "AES_256_GCM", Algorithm.AES_256_GCM, id="gcm"),
        pytest.param("AES_256", "AES_256_GCM_IV16", Algorithm.AES_256_GCM_IV16, id="gcm-16"),
        pytest.param("AES_256", "AES_256_CBC_HMAC_SHA256", Algorithm.AES_256_CBC_HMAC_SHA256, id="cbc"),
        pytest.param("AES_256", None, Algorithm.AES_256_GCM, id="aes-of-an-older-release"),
        pytest.param("RSA_3072", "RSA_OAEP_SHA1_AES_256_GCM", Algorithm.RSA_OAEP_SHA1_AES_256_GCM, id="rsa"),
        pytest.param("RSA_3072", None, None, id="rsa-without-one"),
        pytest.param("RSA_3072", "AES_256_GCM", None, id="aes-algorithm-of-an-rsa-key"),
        pytest.param("AES_256", "RSA_OAEP_SHA256_AES_256_GCM", None, id="rsa-algorithm-of-an-aes-key"),
        pytest.param("AES_256", "SM4_GCM", None, id="unknown"),
        pytest.param("AES_256", "", None, id="empty"),
        pytest.param("AES_256", "1", None, id="a-number"),
        pytest.param("SM4_128", "AES_256_GCM", None, id="spec-unknown"),
    ],
)
def test_the_algorithm_of_a_version_is_what_was_published_if_it_fits(
    key_spec: str, name: str | None, algorithm: Algorithm | None
) -> None:
    key = master_key(key_spec=key_spec, algorithm=name)
    assert key.algorithm(KeyVersion(1)) is algorithm
    assert key.has_version(KeyVersion(1))
    assert key.algorithm(KeyVersion(2)) is None


def test_what_an_rsa_key_publishes_is_read_to_be_shown() -> None:
    key = master_key(key_spec="RSA_3072", algorithm="RSA_OAEP_SHA1_AES_256_GCM", public_key="PEM")
    assert (key.public_key, key.oaep_hash) == ("PEM", "sha1")
    assert (master_key().public_key, master_key().oaep_hash) == ("", "")


@pytest.mark.parametrize("status", [None, {}, {"versions": None}], ids=["null", "empty", "versions-null"])
def test_a_key_without_status_is_being_created(status: Any) -> None:
    body = master_key_body() | {"status": status}
    assert masterkey.parse(body).state is KeyState.CREATING
    del body["status"]
    assert masterkey.parse(body).versions == ()


@pytest.mark.parametrize("word", ["Frozen", "enabled", "", "ENABLED"])
def test_a_state_that_is_not_known_allows_nothing_and_stops_nobody(word: str) -> None:
    key = master_key(state=word)
    assert (key.spec_state, key.state, key.supported) == (None, KeyState.CREATING, False)
    assert key.primary == 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({}, id="empty"),
        pytest.param({"version": 2, "state": "Primary"}, id="no-time"),
        pytest.param({"version": 2, "state": "Compromised", "createdAt": "2026-11-23T10:00:00Z"}, id="state-unknown"),
        pytest.param({"version": 2, "state": "Primary", "createdAt": "yesterday"}, id="time-unreadable"),
        pytest.param({"version": 2, "state": "Primary", "createdAt": 7}, id="time-a-number"),
        pytest.param({"state": "Primary", "createdAt": "2026-11-23T10:00:00Z"}, id="no-number"),
    ],
)
def test_a_version_that_cannot_be_read_is_not_there_and_the_others_are(entry: dict[str, Any]) -> None:
    body = master_key_body(versions={1: "DecryptOnly"})
    body["status"]["versions"].insert(0, entry)
    key = masterkey.parse(body)
    assert [version.version for version in key.versions] == [1]
    assert key.state is KeyState.CREATING


@pytest.mark.parametrize(
    "pending",
    [{"version": 1}, {"keyId": str(KEY_ID)}, {"version": "1", "keyId": str(KEY_ID)}, {"version": 1, "keyId": "x"}],
)
def test_an_intent_that_cannot_be_read_is_none(pending: dict[str, Any]) -> None:
    body = master_key_body(key_id=None)
    body["status"]["pendingVersion"] = pending
    assert masterkey.parse(body).pending is None


@pytest.mark.parametrize("where", ["spec", "status"])
def test_a_key_id_that_is_none_is_not_taken_for_one(where: str) -> None:
    body = master_key_body(key_id=None)
    body[where]["keyId"] = "not-a-uuid"
    key = masterkey.parse(body)
    assert (key.requested_key_id, key.key_id) == (None, None)


# EncryptedSecret


def test_what_is_left_out_has_its_documented_meaning() -> None:
    secret = encrypted_secret()
    assert (secret.service_account, secret.suspended, dict(secret.raw_context)) == ("default", False, {})
    assert (secret.template.type, secret.template.immutable) == ("Opaque", False)
    assert not secret.observed
    assert not secret.applied
    assert not secret.ready
    assert secret.reason == ""


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"template": None, "encryptionContext": None, "suspend": None}, id="nulls"),
        pytest.param({"template": {"metadata": None}}, id="template-metadata-null"),
        pytest.param({"template": {"metadata": {"labels": None, "annotations": None}}}, id="labels-null"),
        pytest.param({"serviceAccountName": ""}, id="account-empty"),
    ],
)
def test_null_is_as_if_left_out(spec: dict[str, Any]) -> None:
    secret = encrypted_secret(**spec)
    assert (secret.service_account, secret.suspended) == ("default", False)
    assert (dict(secret.template.labels), dict(secret.template.annotations)) == ({}, {})


def test_the_bindings_are_those_of_the_place_where_it_stands() -> None:
    secret = encrypted_secret(
        name="db",
        namespace="shop",
        scope="Namespace",
        encryptedData={"a": "", "b": ""},
        encryptionContext={"team": "payments"},
    )
    bindings = secret.bindings()
    assert list(bindings) == ["a", "b"]
    for data_key, binding in bindings.items():
        assert (binding.purpose, binding.scope, binding.data_key) == (Purpose.SECRET, Scope.NAMESPACE, data_key)
        assert (binding.namespace, binding.name, binding.place) == ("shop", "db", ("shop", ""))
        assert binding.context.as_dict() == {"team": "payments"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"scope": "Galaxy"}, Reason.UNSUPPORTED_FORMAT, id="scope-unknown"),
        pytest.param({"scope": "strict"}, Reason.UNSUPPORTED_FORMAT, id="scope-in-lower-case"),
        pytest.param({"encryptionContext": {"a": 1}}, Reason.INVALID_ENCRYPTION_CONTEXT, id="context-not-text"),
    ],
)
def test_what_cannot_be_bound_is_refused(spec: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(StrongroomError) as caught:
        encrypted_secret(**spec).bindings()
    assert caught.value.reason is reason


def digest(**spec: Any) -> str:
    return encrypted_secret(**spec).spec_digest


def test_the_digest_follows_the_spec_and_nothing_else() -> None:
    usual = digest()
    assert digest(suspend=True) == digest(suspend=False) == usual
    assert digest(resource_version=7, generation=7, deleting=True) == usual
    assert digest(encryptedData={"a": "1", "b": "2"}) == digest(encryptedData={"b": "2", "a": "1"})
    others = [
        digest(scope="Cluster"),
        digest(keyRef={"name": "other"}),
        digest(encryptedData={"password": "U1Iy"}),
        digest(encryptedData={"passwort": "U1Ix"}),
        digest(encryptionContext={"a": "b"}),
        digest(serviceAccountName="other"),
        digest(template={"type": "kubernetes.io/tls"}),
    ]
    assert len({usual, *others}) == 1 + len(others)


def test_without_blobs_only_the_blobs_are_gone() -> None:
    secret = encrypted_secret(encryptedData={"a": "U1IxAAAA", "b": "U1IxBBBB"})
    light = secret.without_blobs()
    assert (secret.complete, light.complete) == (True, False)
    assert "U1Ix" not in repr(light)
    assert (light.encrypted_data.keys(), light.spec_digest) == (secret.encrypted_data.keys(), secret.spec_digest)


def test_status_tells_whether_it_is_of_this_generation_and_spec() -> None:
    body = encrypted_secret_body(generation=3)
    conditions = [{"type": "Stalled", "status": "True"}, {"type": "Ready", "status": "True", "reason": "Decrypted"}]
    body["status"] = {"observedGeneration": 3, "appliedSpec": digest(), "conditions": conditions}
    secret = encryptedsecret.parse(body)
    assert (secret.observed, secret.applied, secret.ready, secret.reason) == (True, True, True, "Decrypted")
    body["metadata"]["generation"] = 4
    assert not encryptedsecret.parse(body).observed


def test_the_owner_reference_controls_and_never_blocks_a_deletion() -> None:
    reference = encrypted_secret().owner_reference
    assert reference["controller"] is True
    assert "blockOwnerDeletion" not in reference


def with_template(**template: Any) -> EncryptedSecret:
    return encrypted_secret(template=template)


def labelled(kind: str, key: str) -> EncryptedSecret:
    return with_template(metadata={kind: {key: "value"}})


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        pytest.param(
            with_template(type="kubernetes.io/service-account-token"),
            Reason.FORBIDDEN_SECRET_TYPE,
            id="service-account-token",
        ),
        pytest.param(
            with_template(type="bootstrap.kubernetes.io/token"), Reason.FORBIDDEN_SECRET_TYPE, id="bootstrap-token"
        ),
        pytest.param(labelled("labels", "strongroom.dev/managed"), Reason.UNSUPPORTED_FORMAT, id="our-label"),
        pytest.param(labelled("annotations", "strongroom.dev/adopt"), Reason.UNSUPPORTED_FORMAT, id="our-annotation"),
        pytest.param(labelled("labels", "x.strongroom.dev/y"), Reason.UNSUPPORTED_FORMAT, id="below-our-domain"),
        pytest.param(labelled("labels", "app.kubernetes.io/managed-by"), Reason.UNSUPPORTED_FORMAT, id="managed-by"),
        pytest.param(labelled("annotations", "replicate/to"), Reason.TARGET_REJECTED, id="denied-by-configuration"),
    ],
)
def test_a_template_that_would_steer_or_give_authority_is_refused(secret: EncryptedSecret, reason: Reason) -> None:
    with pytest.raises(StrongroomError) as caught:
        secret.check_template(lambda key: key.startswith("replicate/"))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(with_template(type="kubernetes.io/tls"), id="tls"),
        pytest.param(with_template(type="example.com/own"), id="own-type"),
        pytest.param(labelled("labels", "notstrongroom.dev/x"), id="domain-that-ends-alike"),
        pytest.param(labelled("labels", "strongroom.dev.example.com/x"), id="domain-that-starts-alike"),
        pytest.param(labelled("labels", "strongroom.dev"), id="name-without-domain"),
        pytest.param(labelled("annotations", "app.kubernetes.io/name"), id="usual-label"),
    ],
)
def test_any_other_template_is_taken(secret: EncryptedSecret) -> None:
    secret.check_template(lambda _: False)
