# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.audit.record import Entry, EventName
from strongroom.envelope import format as envelope
from strongroom.envelope.format import Blob
from strongroom.errors import AccessDenied, InvalidCiphertext, Reason, StrongroomError
from strongroom.hsm.api import OpenItem, Sealed, SealItem, Share
from strongroom.kms.service import CryptoService, DecryptItem, EncryptItem
from strongroom.model.algorithms import Algorithm
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec, Operation
from strongroom.model.masterkey import MasterKey
from strongroom.model.plaintext import Plaintext
from strongroom.model.principal import Caller, Permission, Principal, Source
from tests.unit.fakes import KEY_ID, OTHER_KEY_ID, master_key

DENIED = AccessDenied(who="jane", may_not="decrypt")
UNAVAILABLE = StrongroomError(Reason.UNAVAILABLE, "no answer")
AWAY = StrongroomError(Reason.HSM_UNAVAILABLE, "away")
NO_JOURNAL = StrongroomError(Reason.AUDIT_UNAVAILABLE, "the disk is full")


class Door:
    """The service among fakes. `steps` is what it asked of them, in order; each `*_error` is raised when asked."""

    def __init__(self, key: MasterKey | None = None, *, tokens: bool = True, limit: int = 4096) -> None:
        self.steps: list[str] = []
        self.key = key or master_key(versions={1: "DecryptOnly", 2: "Primary"})
        self.key_error: BaseException | None = None
        self.permission_error: BaseException | None = None
        self.ledger_error: BaseException | None = None
        self.token_error: BaseException | None = None
        self.journal_error: BaseException | None = None
        self.fail_at_version: int | None = None
        self.all_namespaces: list[bool] = []
        self.max_ages: list[float] = []
        self.opened: list[Plaintext] = []
        self.to_open: list[OpenItem] = []
        self.opened_sizes: dict[str, int] = {}
        self.asked: list[tuple[Algorithm, Share]] = []
        self.public_key = b""
        self.sealed: list[SealItem] = []
        self.taken: list[tuple[KeyVersionRef, int]] = []
        self.audited: list[tuple[str, Entry]] = []
        self.ckr = ""
        self.counted: list[tuple[Operation, str, str]] = []
        algorithm = self.key.algorithm(self.key.primary or KeyVersion(1))
        self.profile: dict[KeySpec | None, Algorithm | None] = {self.key.known_spec: algorithm}
        token = SimpleNamespace(
            seal=self._seal, open=self._open, public_key=self._public_key, algorithm=lambda spec: self.profile[spec]
        )
        self.service = CryptoService(
            keys=SimpleNamespace(get=self._get),  # type: ignore[arg-type]
            tokens={"default": token} if tokens else {},  # type: ignore[dict-item]
            authorizer=SimpleNamespace(require=self._require),  # type: ignore[arg-type]
            ledger=SimpleNamespace(take=self._take),  # type: ignore[arg-type]
            journal=SimpleNamespace(success=self._success, refusal=self._refusal),  # type: ignore[arg-type]
            max_plaintext_bytes=limit,
            on_operation=lambda *counted: self.counted.append(counted),
        )

    def _step(self, name: str, error: BaseException | None) -> None:
        self.steps.append(name)
        if error:
            raise error

    async def _get(self, name: str, *, max_age: float) -> MasterKey:
        assert name == "prod"
        self.max_ages.append(max_age)
        self._step("key", self.key_error)
        return self.key

    async def _require(self, caller: Caller, key_name: str, *, all_namespaces: bool) -> None:
        assert (caller.namespace, key_name) == ("shop", "prod")
        self.all_namespaces.append(all_namespaces)
        self._step("permission", self.permission_error)

    async def _take(self, key: KeyVersionRef, count: int) -> None:
        self.taken.append((key, count))
        self._step("ledger", self.ledger_error)

    async def _seal(
        self, key: KeyVersionRef, algorithm: Algorithm, items: Sequence[SealItem], *, share: Share
    ) -> list[Sealed]:
        assert key.version == self.key.primary
        self.asked.append((algorithm, share))
        self.sealed += items
        self._step("seal", self.token_error)
        sizes = [algorithm.ciphertext_bytes(len(item.plaintext)) + algorithm.tag_bytes for item in items]
        return [Sealed(bytes(algorithm.nonce_bytes), bytes(size)) for size in sizes]

    async def _public_key(self, key: KeyVersionRef) -> bytes:
        assert key.version == self.key.primary
        self._step("public-key", self.token_error)
        return self.public_key

    async def _open(
        self, key: KeyVersionRef, algorithm: Algorithm, items: Sequence[OpenItem], *, share: Share
    ) -> list[Plaintext]:
        self.asked.append((algorithm, share))
        self.to_open += items
        failing = self.fail_at_version == key.version
        error = InvalidCiphertext(where="it", ckr="CKR_ENCRYPTED_DATA_INVALID") if failing else self.token_error
        self._step(f"open-v{key.version}", error)
        values = [(item.where, b"value of " + item.where.encode()) for item in items]
        opened = [Plaintext(bytes(self.opened_sizes.get(where, 0)) or value) for where, value in values]
        self.opened += opened
        return opened

    def _success(self, entry: Entry) -> None:
        self._step("audit", self.journal_error)
        self.audited.append(("Success", entry))

    def _refusal(self, entry: Entry, error: StrongroomError) -> None:
        self.ckr = error.ckr
        self.audited.append((error.reason.value, entry))

    async def run(self, operation: Operation, **options: Any) -> Any:
        if operation is Operation.ENCRYPT:
            return await self.service.encrypt(caller(Permission.ENCRYPT), "prod", [to_encrypt()], **options)
        return await self.service.decrypt(caller(), "prod", [to_decrypt()], **options)


def caller(permission: Permission = Permission.DECRYPT) -> Caller:
    return Caller(Principal("jane"), permission, "shop", Source(via="API"))


def binding(data_key: str = "password", scope: Scope = Scope.STRICT) -> Binding:
    return Binding(Purpose.SECRET, scope, "shop", "db", data_key, EncryptionContext.parse({"team": "payments"}))


def to_encrypt(data_key: str = "password", *, size: int = 5, scope: Scope = Scope.STRICT) -> EncryptItem:
    return EncryptItem(binding(data_key, scope), Plaintext(bytes(size)), data_key)


def text(
    version: int = 2,
    *,
    key_id: Any = KEY_ID,
    size: int = 5,
    algorithm: Algorithm = Algorithm.AES_256_GCM,
    wrapped: int = 0,
) -> str:
    ref = KeyVersionRef(KeyId(key_id), KeyVersion(version))
    body = bytes(algorithm.ciphertext_bytes(size) + algorithm.tag_bytes)
    return Blob(algorithm, ref, bytes(algorithm.nonce_bytes), body, b"w" * wrapped).serialise()


def to_decrypt(blob: str | None = None, data_key: str = "password", *, scope: Scope = Scope.STRICT) -> DecryptItem:
    return DecryptItem(binding(data_key, scope), text() if blob is None else blob, data_key)


ORDER = {
    Operation.ENCRYPT: ["permission", "key", "ledger", "seal", "audit"],
    Operation.DECRYPT: ["permission", "key", "open-v2", "audit"],
}


@pytest.mark.parametrize("operation", Operation)
async def test_the_steps_come_in_order_and_the_record_before_the_release(operation: Operation) -> None:
    door = Door()
    await door.run(operation)
    assert door.steps == ORDER[operation]
    ((outcome, entry),) = door.audited
    assert (outcome, entry.verdict, entry.key_id, entry.hsm) == ("Success", "Allowed", str(KEY_ID), "default")
    assert (list(entry.key_versions), entry.scope, entry.name) == ([2], "Strict", "db")
    size = 5 if operation is Operation.ENCRYPT else len("value of password")
    assert [(value.data_key, value.plaintext_bytes) for value in entry.values] == [("password", size)]
    assert entry.context == {"team": "payments"}
    assert door.counted == [(operation, "prod", "Success")]


@pytest.mark.parametrize("operation", Operation)
async def test_a_dry_run_asks_everything_but_token_and_ledger_and_is_recorded(operation: Operation) -> None:
    door = Door()
    answer = await door.run(operation, dry_run=True)
    assert door.steps == ["permission", "key", "audit"]
    assert door.audited[0][1].dry_run
    assert (answer.blobs if operation is Operation.ENCRYPT else answer.plaintexts) == []


async def test_blobs_come_in_order_under_the_primary_version_and_are_accounted_for() -> None:
    door = Door()
    items = [to_encrypt("a", size=0), to_encrypt("b", size=4096)]
    answer = await door.service.encrypt(caller(Permission.ENCRYPT), "prod", items)
    parsed = [envelope.parse(blob, where="it") for blob in answer.blobs]
    assert [blob.plaintext_sizes for blob in parsed] == [range(1), range(4096, 4097)]
    assert {(blob.key.key_id, blob.key.version) for blob in parsed} == {(KEY_ID, 2)}
    assert [(ref.version, count) for ref, count in door.taken] == [(2, 2)]
    assert len({item.aad for item in door.sealed}) == 2


async def test_values_of_several_versions_come_in_their_own_order_with_one_round_trip_a_version() -> None:
    door = Door()
    items = [to_decrypt(text(version), f"{version}-{n}") for n, version in enumerate([2, 1, 2, 1])]
    answer = await door.service.decrypt(caller(), "prod", items)
    assert door.steps == ["permission", "key", "open-v1", "open-v2", "audit"]
    assert [p.reveal() for p in answer.plaintexts] == [b"value of " + item.where.encode() for item in items]
    assert answer.versions == [1, 2]


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        pytest.param("QUJD", Reason.UNSUPPORTED_FORMAT, id="not-a-blob"),
        pytest.param(text() + "\n", Reason.INVALID_CIPHERTEXT, id="not-canonical"),
        pytest.param(text(size=101), Reason.PLAINTEXT_TOO_LARGE, id="too-large"),
    ],
)
async def test_what_is_no_blob_is_refused_before_anyone_is_asked(blob: str, reason: Reason) -> None:
    door = Door(limit=100)
    with pytest.raises(StrongroomError) as caught:
        await door.service.decrypt(caller(), "prod", [to_decrypt(), to_decrypt(blob, "bad")])
    assert (caught.value.reason, door.steps) == (reason, [])
    ((outcome, entry),) = door.audited
    assert (outcome, entry.verdict) == (reason.value, "NotAsked")


async def test_a_value_too_large_is_refused_before_anyone_is_asked() -> None:
    door = Door(limit=100)
    with pytest.raises(StrongroomError, match="large is 101 bytes, at most 100"):
        await door.service.encrypt(
            caller(Permission.ENCRYPT), "prod", [to_encrypt(size=100), to_encrypt("large", size=101)]
        )
    assert door.steps == []
    assert door.audited[0][0] == "PlaintextTooLarge"


@pytest.mark.parametrize("operation", Operation)
async def test_who_may_not_use_a_key_learns_nothing_of_its_state(operation: Operation) -> None:
    door = Door(master_key(state="Disabled"))
    door.permission_error = DENIED
    with pytest.raises(AccessDenied):
        await door.run(operation)
    assert door.steps == ["permission"]
    ((outcome, entry),) = door.audited
    assert (outcome, entry.verdict, entry.key_id) == ("AccessDenied", "Denied", "")


async def test_no_verdict_is_told_apart_from_a_no() -> None:
    door = Door()
    door.permission_error = UNAVAILABLE
    with pytest.raises(StrongroomError):
        await door.run(Operation.DECRYPT)
    assert (door.audited[0][0], door.audited[0][1].verdict) == ("Unavailable", "NoVerdict")


@pytest.mark.parametrize(
    ("changes", "operation", "reason"),
    [
        ({"state": "Disabled"}, Operation.ENCRYPT, Reason.KEY_DISABLED),
        ({"state": "Disabled"}, Operation.DECRYPT, Reason.KEY_DISABLED),
        ({"state": "Archived"}, Operation.ENCRYPT, Reason.KEY_ARCHIVED),
        ({"key_id": None}, Operation.ENCRYPT, Reason.KEY_NOT_READY),
        ({"key_id": None}, Operation.DECRYPT, Reason.KEY_NOT_READY),
        ({"key_spec": "SM4"}, Operation.DECRYPT, Reason.KEY_NOT_READY),
        ({"key_id": OTHER_KEY_ID}, Operation.DECRYPT, Reason.INCORRECT_KEY),
        ({"versions": {1: "Primary"}}, Operation.DECRYPT, Reason.KEY_VERSION_NOT_FOUND),
    ],
)
async def test_an_unfit_key_is_refused_before_the_token_and_the_ledger(
    changes: dict[str, Any], operation: Operation, reason: Reason
) -> None:
    door = Door(master_key(**changes))
    with pytest.raises(StrongroomError) as caught:
        await door.run(operation)
    assert (caught.value.reason, door.steps) == (reason, ["permission", "key"])
    assert door.audited[0][0] == reason.value
    assert door.counted == [(operation, "prod" if door.key.key_id else "", reason.value)]


async def test_an_archived_key_decrypts() -> None:
    door = Door(master_key(state="Archived", versions={2: "Primary"}))
    assert len((await door.run(Operation.DECRYPT)).plaintexts) == 1


@pytest.mark.parametrize("operation", Operation)
async def test_a_token_that_is_not_configured_is_named_and_nothing_is_accounted_for(operation: Operation) -> None:
    door = Door(tokens=False)
    with pytest.raises(StrongroomError, match="'default'") as caught:
        await door.run(operation)
    assert caught.value.reason is Reason.HSM_UNAVAILABLE
    assert door.steps == ["permission", "key"]


async def test_without_the_ledger_the_token_is_not_asked() -> None:
    door = Door()
    door.ledger_error = StrongroomError(Reason.KEY_EXHAUSTED, "used up")
    with pytest.raises(StrongroomError):
        await door.run(Operation.ENCRYPT)
    assert door.steps == ["permission", "key", "ledger"]
    assert door.audited[0][0] == "KeyExhausted"


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("key_error", StrongroomError(Reason.KEY_NOT_FOUND, "none")),
        ("token_error", StrongroomError(Reason.HSM_UNAVAILABLE, "away")),
        ("token_error", ValueError("a bug")),
        ("token_error", asyncio.CancelledError()),
    ],
    ids=["key", "token", "bug", "cancelled"],
)
async def test_every_failure_is_recorded_counted_and_raised_as_it_is(
    operation: Operation, where: str, error: BaseException
) -> None:
    door = Door()
    setattr(door, where, error)
    with pytest.raises(type(error)) as caught:
        await door.run(operation)
    assert caught.value is error
    reason = error.reason if isinstance(error, StrongroomError) else Reason.INTERNAL
    assert [outcome for outcome, _ in door.audited] == [reason.value]
    assert door.counted == [(operation, "" if where == "key_error" else "prod", reason.value)]


@pytest.mark.parametrize("error", [NO_JOURNAL, OSError("a bug")], ids=["full", "bug"])
async def test_without_a_record_the_plaintexts_are_wiped_and_not_released(error: BaseException) -> None:
    door = Door()
    door.journal_error = error
    with pytest.raises(type(error)):
        await door.service.decrypt(caller(), "prod", [to_decrypt(), to_decrypt(text(1), "other")])
    assert len(door.opened) == 2
    assert all(set(plaintext.reveal()) == {0} for plaintext in door.opened)
    expected = error.reason if isinstance(error, StrongroomError) else Reason.INTERNAL
    assert door.counted == [(Operation.DECRYPT, "prod", expected.value)]


async def test_when_one_value_fails_the_others_are_wiped() -> None:
    door = Door()
    door.fail_at_version = 2
    with pytest.raises(InvalidCiphertext):
        await door.service.decrypt(caller(), "prod", [to_decrypt(text(1), "good"), to_decrypt(text(2), "bad")])
    (plaintext,) = door.opened
    assert set(plaintext.reveal()) == {0}
    assert [outcome for outcome, _ in door.audited] == ["InvalidCiphertext"]


@pytest.mark.parametrize(
    ("permission", "scopes", "everywhere"),
    [
        (Permission.DECRYPT, [Scope.STRICT, Scope.NAMESPACE], False),
        (Permission.DECRYPT, [Scope.CLUSTER], True),
        (Permission.DECRYPT, [Scope.STRICT, Scope.CLUSTER], True),
        (Permission.USE, [Scope.CLUSTER], False),
    ],
    ids=["strict-and-namespace", "cluster", "one-of-scope-cluster", "an-encryptedsecret-of-scope-cluster"],
)
async def test_scope_cluster_through_the_api_needs_the_permission_in_all_namespaces(
    permission: Permission, scopes: list[Scope], everywhere: bool
) -> None:
    door = Door()
    items = [to_decrypt(data_key=str(n), scope=scope) for n, scope in enumerate(scopes)]
    await door.service.decrypt(caller(permission), "prod", items)
    assert door.all_namespaces == [everywhere]
    if permission is not Permission.USE:
        door = Door()
        sealing = [to_encrypt(str(n), scope=scope) for n, scope in enumerate(scopes)]
        await door.service.encrypt(caller(Permission.ENCRYPT), "prod", sealing)
        assert door.all_namespaces == [everywhere]


@pytest.mark.parametrize(("permission", "age"), [(Permission.DECRYPT, 0.1), (Permission.USE, 1.0)])
async def test_the_api_acts_on_a_fresher_key_than_the_reconciler(permission: Permission, age: float) -> None:
    door = Door()
    await door.service.decrypt(caller(permission), "prod", [to_decrypt()])
    assert door.max_ages == [age]


@pytest.mark.parametrize("operation", Operation)
async def test_a_key_whose_spec_is_unknown_is_being_created_and_says_where_to_look(operation: Operation) -> None:
    for changes in ({"key_spec": "SM4"}, {"state": "Frozen"}):
        door = Door(master_key(**changes))
        with pytest.raises(StrongroomError, match=r"is Creating.*kubectl describe cmk") as caught:
            await door.run(operation)
        assert caught.value.reason is Reason.KEY_NOT_READY


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("where", ["permission_error", "key_error"])
async def test_a_name_that_may_be_made_up_is_no_metric_label(operation: Operation, where: str) -> None:
    door = Door()
    setattr(door, where, DENIED if where == "permission_error" else StrongroomError(Reason.KEY_NOT_FOUND, "none"))
    with pytest.raises(StrongroomError):
        await door.run(operation)
    ((_, label, _),) = door.counted
    assert label == ""


def test_what_is_refused_before_it_comes_to_the_service_is_audited_and_asks_nobody() -> None:
    door = Door()
    error = StrongroomError(Reason.FORBIDDEN_SECRET_TYPE, "never written")
    door.service.record_refusal(caller(Permission.USE), "prod", error)
    ((outcome, entry),) = door.audited
    assert (outcome, entry.event, entry.key_name, entry.verdict) == (
        "ForbiddenSecretType", EventName.DECRYPT, "prod", "NotAsked",
    )  # fmt: skip
    assert entry.caller == caller(Permission.USE)
    assert door.steps == []


# Algorithms

RSA = Algorithm.RSA_OAEP_SHA1_AES_256_GCM
CBC = Algorithm.AES_256_CBC_HMAC_SHA256


def key_of(algorithm: Algorithm, key_spec: str = "") -> MasterKey:
    spec = key_spec or ("RSA_3072" if algorithm.oaep_hash else "AES_256")
    return master_key(key_spec=spec, algorithm=algorithm.name, versions={1: "DecryptOnly", 2: "Primary"})


@pytest.fixture(scope="module")
def public_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("algorithm", [algorithm for algorithm in Algorithm if not algorithm.oaep_hash])
async def test_values_are_encrypted_with_the_algorithm_of_the_primary_version(algorithm: Algorithm) -> None:
    door = Door(key_of(algorithm))
    answer = await door.run(Operation.ENCRYPT)
    assert door.asked == [(algorithm, Share.API)]
    (blob,) = [envelope.parse(blob, where="it") for blob in answer.blobs]
    assert (blob.algorithm, len(blob.nonce)) == (algorithm, algorithm.nonce_bytes)
    assert 5 in blob.plaintext_sizes


async def test_under_rsa_values_are_sealed_with_the_tokens_public_key_and_the_ledger_is_not_asked(
    public_key: bytes,
) -> None:
    door = Door(key_of(RSA))
    door.public_key = public_key
    items = [to_encrypt("a"), to_encrypt("b")]
    answer = await door.service.encrypt(caller(Permission.ENCRYPT), "prod", items)
    assert door.steps == ["permission", "key", "public-key", "audit"]
    parsed = [envelope.parse(blob, where="it") for blob in answer.blobs]
    assert [(blob.algorithm, len(blob.wrapped_key), len(blob.body)) for blob in parsed] == [(RSA, 384, 21)] * 2
    assert len({blob.wrapped_key for blob in parsed}) == 2
    assert (door.sealed, door.taken) == ([], [])


async def test_the_public_key_in_status_is_never_encrypted_with() -> None:
    planted = "-----BEGIN PUBLIC KEY-----\nof the attacker\n-----END PUBLIC KEY-----\n"
    door = Door(master_key(key_spec="RSA_3072", algorithm=RSA.name, public_key=planted))
    door.token_error = AWAY
    with pytest.raises(StrongroomError) as caught:
        await door.run(Operation.ENCRYPT)
    assert caught.value is AWAY
    assert door.steps == ["permission", "key", "public-key"]
    assert door.audited[0][0] == "HSMUnavailable"


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize(("permission", "share"), [(Permission.DECRYPT, Share.API), (Permission.USE, Share.RECONCILE)])
async def test_values_are_opened_with_their_versions_algorithm_on_behalf_of_who_asks(
    algorithm: Algorithm, permission: Permission, share: Share
) -> None:
    door = Door(key_of(algorithm))
    wrapped = 384 if algorithm.oaep_hash else 0
    blob = text(algorithm=algorithm, wrapped=wrapped)
    await door.service.decrypt(caller(permission), "prod", [to_decrypt(blob)])
    assert door.asked == [(algorithm, share)]
    (item,) = door.to_open
    assert (item.wrapped_key, len(item.nonce)) == (b"w" * wrapped, algorithm.nonce_bytes)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("other", Algorithm)
async def test_a_value_of_another_algorithm_than_its_versions_never_reaches_the_token(
    algorithm: Algorithm, other: Algorithm
) -> None:
    if algorithm is other:
        return
    door = Door(key_of(algorithm))
    blob = text(algorithm=other, wrapped=384 if other.oaep_hash else 0)
    with pytest.raises(StrongroomError, match=f"{other.name}.*{algorithm.name}") as caught:
        await door.service.decrypt(caller(), "prod", [to_decrypt(blob)])
    assert (caught.value.reason, door.steps) == (Reason.UNSUPPORTED_FORMAT, ["permission", "key"])


@pytest.mark.parametrize(("key_spec", "wrapped"), [("RSA_3072", 512), ("RSA_4096", 384)])
async def test_a_wrapped_key_of_another_modulus_never_reaches_the_token_and_looks_like_any_bad_value(
    key_spec: str, wrapped: int
) -> None:
    door = Door(key_of(RSA, key_spec))
    with pytest.raises(InvalidCiphertext) as caught:
        await door.service.decrypt(caller(), "prod", [to_decrypt(text(algorithm=RSA, wrapped=wrapped), "it")])
    assert str(caught.value) == str(InvalidCiphertext(where="it"))
    assert door.steps == ["permission", "key"]


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("name", ["SM4_GCM", "RSA_OAEP_SHA1_AES_256_GCM"])
async def test_an_algorithm_that_is_not_known_for_the_key_is_refused_before_token_and_ledger(
    operation: Operation, name: str
) -> None:
    door = Door(master_key(versions={2: "Primary"}, algorithm=name))
    with pytest.raises(StrongroomError) as caught:
        await door.run(operation)
    assert (caught.value.reason, door.steps) == (Reason.UNSUPPORTED_FORMAT, ["permission", "key"])


async def test_a_status_of_an_older_release_means_gcm() -> None:
    door = Door(master_key(versions={2: "Primary"}, algorithm=None))
    await door.run(Operation.ENCRYPT)
    await door.run(Operation.DECRYPT)
    assert [algorithm for algorithm, _ in door.asked] == [Algorithm.AES_256_GCM] * 2


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("now", [None, Algorithm.AES_256_GCM_IV16])
async def test_a_key_whose_hsm_has_another_profile_now_decrypts_only(now: Algorithm | None, dry_run: bool) -> None:
    door = Door()
    door.profile = {KeySpec.AES_256: now}
    with pytest.raises(StrongroomError, match=r"AES_256_GCM.*decrypts only") as caught:
        await door.run(Operation.ENCRYPT, dry_run=dry_run)
    assert (caught.value.reason, door.steps) == (Reason.INVALID_KEY_USAGE, ["permission", "key"])
    await door.run(Operation.DECRYPT)


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_which_step_failed_is_recorded_but_under_rsa_where_it_would_be_an_oracle(algorithm: Algorithm) -> None:
    door = Door(key_of(algorithm))
    door.fail_at_version = 2
    blob = text(algorithm=algorithm, wrapped=384 if algorithm.oaep_hash else 0)
    with pytest.raises(InvalidCiphertext) as caught:
        await door.service.decrypt(caller(), "prod", [to_decrypt(blob)])
    expected = "" if algorithm.oaep_hash else "CKR_ENCRYPTED_DATA_INVALID"
    assert (caught.value.ckr, door.ckr) == (expected, expected)


@pytest.mark.parametrize(
    ("size", "accepted"), [(96, True), (100, True), (101, False), (111, False)], ids=["least", "limit", "more", "most"]
)
async def test_a_size_that_padding_hid_is_checked_when_it_is_known_and_recorded(size: int, accepted: bool) -> None:
    door = Door(key_of(CBC), limit=100)
    door.opened_sizes = {"it": size}
    request = door.service.decrypt(caller(), "prod", [to_decrypt(text(algorithm=CBC, size=size), "it")])
    if accepted:
        assert len((await request).plaintexts[0]) == size
    else:
        with pytest.raises(StrongroomError, match=f"it is {size} bytes, at most 100") as caught:
            await request
        assert caught.value.reason is Reason.PLAINTEXT_TOO_LARGE
        assert set(door.opened[0].reveal()) == {0}
    ((outcome, entry),) = door.audited
    assert (outcome, [value.plaintext_bytes for value in entry.values]) == (
        "Success" if accepted else "PlaintextTooLarge", [size],
    )  # fmt: skip


async def test_a_size_that_padding_hides_is_recorded_as_the_largest_possible_on_a_dry_run() -> None:
    door = Door(key_of(CBC))
    await door.service.decrypt(caller(), "prod", [to_decrypt(text(algorithm=CBC, size=5))], dry_run=True)
    assert [value.plaintext_bytes for value in door.audited[0][1].values] == [15]
