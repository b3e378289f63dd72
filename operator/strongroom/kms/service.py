# SPDX-License-Identifier: Apache-2.0
"""The one door to encryption and decryption, for the reconciler and the crypto API alike.

Authorisation and the audit record happen inside, so that no caller can forget them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

from strongroom.audit.journal import Journal
from strongroom.audit.record import Entry, EventName, Value
from strongroom.authz import Authorizer
from strongroom.envelope import format as envelope
from strongroom.envelope.aad import additional_data
from strongroom.envelope.format import Blob
from strongroom.envelope.sealing import seal_with_public_key
from strongroom.errors import InvalidCiphertext, PlaintextTooLarge, Reason, StrongroomError
from strongroom.hsm.api import OpenItem, SealItem, Share, Token
from strongroom.kms.keyreader import API_MAX_AGE_SECONDS, RECONCILER_MAX_AGE_SECONDS, KeyReader
from strongroom.kms.ledger import Ledger
from strongroom.model import keys
from strongroom.model.algorithms import Algorithm, modulus_bytes
from strongroom.model.binding import Binding, Scope
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec, KeyState, Operation
from strongroom.model.masterkey import MasterKey
from strongroom.model.plaintext import Plaintext
from strongroom.model.principal import Caller, Permission

_API: Final = (API_MAX_AGE_SECONDS, Share.API)
_RECONCILER: Final = (RECONCILER_MAX_AGE_SECONDS, Share.RECONCILE)
"""How old a key may be, and whose part of the token's sessions is used."""


@dataclass(frozen=True, slots=True)
class EncryptItem:
    """One value to encrypt. `where` names it in errors."""

    binding: Binding
    plaintext: Plaintext
    where: str


@dataclass(frozen=True, slots=True)
class DecryptItem:
    """One blob, as text, to decrypt. `where` names it in errors."""

    binding: Binding
    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Blobs in the order of the items; none on a dry run."""

    key_id: KeyId
    version: KeyVersion
    blobs: list[str]


@dataclass(frozen=True, slots=True)
class Decrypted:
    """Plaintexts in the order of the items; none on a dry run. Whoever gets them wipes them after use."""

    versions: list[KeyVersion]
    plaintexts: list[Plaintext]


class CryptoService:
    """Encrypts and decrypts, all values or none. Raises StrongroomError; a refusal is audited before it is raised.

    Cancelling a call drops the result; what the token was asked for may still happen there.
    """

    def __init__(
        self,
        *,
        keys: KeyReader,
        tokens: Mapping[str, Token],
        authorizer: Authorizer,
        ledger: Ledger,
        journal: Journal,
        max_plaintext_bytes: int,
        on_operation: Callable[[Operation, str, str], None],
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._authorizer = authorizer
        self._ledger = ledger
        self._journal = journal
        self._max_plaintext_bytes = max_plaintext_bytes
        self._on_operation = on_operation

    async def encrypt(
        self, caller: Caller, key_name: str, items: Sequence[EncryptItem], *, dry_run: bool = False
    ) -> Encrypted:
        """Encrypt under the key's primary version.

        1. Check sizes.  2. Ask for permission.  3. Read the key, check its state, and that the HSM still encrypts as
        that version does.  4. Account for it in the ledger, if the key itself encrypts: a public key wraps a fresh key
        for each value.  5. Bind and encrypt: in the token, or here with the public key that the token holds.  6. Write
        the audit record.  7. Release the blobs.
        """
        entry = _entry(EventName.ENCRYPT, caller, key_name, [item.binding for item in items], dry_run)
        entry.values = [Value(item.binding.data_key, len(item.plaintext)) for item in items]
        try:
            # (1)
            self._check_sizes(items, [item.plaintext for item in items])
            # (2)
            await self._authorize(entry, caller, key_name, [item.binding for item in items])
            # (3)
            key = await self._usable_key(entry, key_name, Operation.ENCRYPT, API_MAX_AGE_SECONDS)
            assert key.key_id is not None
            assert key.primary is not None
            version = key.version_ref(key.primary)
            entry.key_versions = [version.version]
            algorithm, token = _algorithm(key, version.version), self._token(key)
            _check_profile(key, algorithm, token)
            blobs: list[str] = []
            if not dry_run:
                if algorithm.oaep_hash is None:
                    # (4)
                    await self._ledger.take(version, len(items))
                    # (5)
                    blobs = await _seal(token, version, algorithm, items)
                else:
                    blobs = await _seal_with_public_key(token, version, algorithm, items)
            # (6)
            self._journal.success(entry)
        except BaseException as error:
            self._refuse(entry, Operation.ENCRYPT, error)
        self._on_operation(Operation.ENCRYPT, key_name, "Success")
        # (7)
        return Encrypted(key.key_id, version.version, blobs)

    async def decrypt(
        self, caller: Caller, key_name: str, items: Sequence[DecryptItem], *, dry_run: bool = False
    ) -> Decrypted:
        """Decrypt with the versions that the blobs name.

        1. Parse every blob, check sizes.  2. Ask for permission.  3. Read the key, check its state.  4. Check that
        every blob is of this key, a known version and that version's algorithm.  5. Open them in the token, and check
        the sizes that only the plaintexts tell.  6. Write the audit record.  7. Release the plaintexts.
        """
        entry = _entry(EventName.DECRYPT, caller, key_name, [item.binding for item in items], dry_run)
        plaintexts: list[Plaintext] = []
        try:
            # (1)
            entry.values = [Value(item.binding.data_key, -1) for item in items]
            blobs = [envelope.parse(item.text, where=item.where, limit=self._max_plaintext_bytes) for item in items]
            entry.values = [
                Value(item.binding.data_key, blob.plaintext_sizes[-1]) for item, blob in zip(items, blobs, strict=True)
            ]
            # (2)
            await self._authorize(entry, caller, key_name, [item.binding for item in items])
            # (3)
            reconciling = caller.permission is Permission.USE
            max_age, share = _RECONCILER if reconciling else _API
            key = await self._usable_key(entry, key_name, Operation.DECRYPT, max_age)
            # (4)
            for item, blob in zip(items, blobs, strict=True):
                _check_key(key, blob, item.where)
            versions = sorted({blob.key.version for blob in blobs})
            entry.key_versions = versions
            # (5)
            if not dry_run:
                plaintexts = await _open(self._token(key), share, items, blobs)
                entry.values = [
                    Value(item.binding.data_key, len(plaintext))
                    for item, plaintext in zip(items, plaintexts, strict=True)
                ]
                self._check_sizes(items, plaintexts)
            # (6)
            self._journal.success(entry)
        except BaseException as error:
            for plaintext in plaintexts:
                plaintext.wipe()
            self._refuse(entry, Operation.DECRYPT, error)
        self._on_operation(Operation.DECRYPT, key_name, "Success")
        # (7)
        return Decrypted(versions, plaintexts)

    def record_refusal(self, caller: Caller, key_name: str, error: StrongroomError) -> None:
        """Audit a decryption that is refused before it comes here, because the object that asks for it is wrong."""
        self._journal.refusal(Entry(EventName.DECRYPT, caller, key_name=key_name), error)

    def _check_sizes(self, items: Sequence[EncryptItem | DecryptItem], plaintexts: Sequence[Plaintext]) -> None:
        for item, plaintext in zip(items, plaintexts, strict=True):
            if len(plaintext) > self._max_plaintext_bytes:
                raise PlaintextTooLarge(where=item.where, size=len(plaintext), limit=self._max_plaintext_bytes)

    async def _authorize(self, entry: Entry, caller: Caller, key_name: str, bindings: Sequence[Binding]) -> None:
        """The reconciler's permission is the namespace's, whatever the scope; who calls the API with scope Cluster
        makes or opens values that are good everywhere, so needs the permission everywhere."""
        everywhere = caller.permission is not Permission.USE and any(
            binding.scope is Scope.CLUSTER for binding in bindings
        )
        try:
            await self._authorizer.require(caller, key_name, all_namespaces=everywhere)
        except StrongroomError as error:
            entry.verdict = "Denied" if error.reason is Reason.ACCESS_DENIED else "NoVerdict"
            raise
        entry.verdict = "Allowed"

    async def _usable_key(self, entry: Entry, name: str, operation: Operation, max_age: float) -> MasterKey:
        key = await self._keys.get(name, max_age=max_age)
        entry.key_id = str(key.key_id or "")
        entry.hsm = key.hsm
        reason = keys.refusal(key.state, operation)
        if reason is not None:
            raise StrongroomError(
                reason, f"the key {name!r} is {key.state.value}, so it may not {operation.value.lower()}",
                hint=_STATE_HINTS.get(key.state, ""),
            )  # fmt: skip
        return key

    def _token(self, key: MasterKey) -> Token:
        token = self._tokens.get(key.hsm)
        if token is None:
            raise StrongroomError(
                Reason.HSM_UNAVAILABLE,
                f"the key {key.name!r} is in the HSM {key.hsm!r}, which this operator is not configured for",
                hint="Add it to `hsms` in the operator's configuration",
            )
        return token

    def _refuse(self, entry: Entry, operation: Operation, error: BaseException) -> NoReturn:
        """Audit, count, raise. A cancellation or a bug is recorded as Internal and goes on as it is."""
        refusal = error if isinstance(error, StrongroomError) else StrongroomError(Reason.INTERNAL, "interrupted")
        if refusal.reason is not Reason.AUDIT_UNAVAILABLE:
            self._journal.refusal(entry, refusal)
        # Names of keys that do not exist are whatever the caller writes: they are no metric labels.
        self._on_operation(operation, entry.key_name if entry.key_id else "", refusal.reason.value)
        raise error


_STATE_HINTS: Final = {
    KeyState.DISABLED: "Set spec.state of the CustomerMasterKey to Enabled",
    KeyState.ARCHIVED: "An archived key decrypts only; encrypt under another key",
    KeyState.CREATING: "Its conditions say what it waits for: kubectl describe cmk",
}


def _entry(event: EventName, caller: Caller, key_name: str, bindings: Sequence[Binding], dry_run: bool) -> Entry:
    first = bindings[0]
    return Entry(
        event,
        caller,
        key_name=key_name,
        scope=first.scope.value,
        name=first.name,
        context=first.context.as_dict(),
        dry_run=dry_run,
    )


def _check_key(key: MasterKey, blob: Blob, where: str) -> None:
    if blob.key.key_id != key.key_id:
        raise StrongroomError(
            Reason.INCORRECT_KEY,
            f"{where} was encrypted under the key id {blob.key.key_id}, but {key.name!r} is {key.key_id}",
            hint="Name the key it was encrypted under in keyRef, or encrypt it again",
        )
    if not key.has_version(blob.key.version):
        raise StrongroomError(
            Reason.KEY_VERSION_NOT_FOUND,
            f"{where} was encrypted under version {blob.key.version} of {key.name!r}, which does not exist",
            hint="Encrypt it again",
        )
    algorithm = _algorithm(key, blob.key.version)
    if blob.algorithm is not algorithm:
        raise StrongroomError(
            Reason.UNSUPPORTED_FORMAT,
            f"{where} uses {blob.algorithm.name}, but version {blob.key.version} of {key.name!r} uses {algorithm.name}",
            hint="Encrypt it again",
        )
    if blob.wrapped_key and len(blob.wrapped_key) != modulus_bytes(KeySpec(key.key_spec)):
        raise InvalidCiphertext(where=where)


def _algorithm(key: MasterKey, version: KeyVersion) -> Algorithm:
    """The algorithm that was published for this version; never what a blob says."""
    algorithm = key.algorithm(version)
    if algorithm is None:
        raise StrongroomError(
            Reason.UNSUPPORTED_FORMAT,
            f"version {version} of {key.name!r} has an algorithm that this version of the operator does not know",
            hint="Upgrade the operator to the version that created the key",
        )
    return algorithm


def _check_profile(key: MasterKey, algorithm: Algorithm, token: Token) -> None:
    """A profile that was changed since the version was made says that the token encrypts otherwise."""
    now = token.algorithm(KeySpec(key.key_spec))
    if now is not algorithm:
        raise StrongroomError(
            Reason.INVALID_KEY_USAGE,
            f"{key.name!r} encrypts with {algorithm.name}, but HSM {key.hsm!r} with {now.name if now else 'nothing'} "
            "by its profile: the key decrypts only",
            hint="Encrypt under another key, or set the HSM's `profile` back in the operator's configuration",
        )


async def _seal(token: Token, version: KeyVersionRef, algorithm: Algorithm, items: Sequence[EncryptItem]) -> list[str]:
    header = envelope.pack_header(algorithm, version)
    requests = [SealItem(item.plaintext, additional_data(header, item.binding)) for item in items]
    sealed = await token.seal(version, algorithm, requests, share=Share.API)
    return [Blob(algorithm, version, value.nonce, value.body).serialise() for value in sealed]


async def _seal_with_public_key(
    token: Token, version: KeyVersionRef, algorithm: Algorithm, items: Sequence[EncryptItem]
) -> list[str]:
    """The public key comes from the token: one in status could be of whoever can write status."""
    public_key = await token.public_key(version)
    blobs = []
    for item in items:
        await asyncio.sleep(0)  # 64 values take 8 ms: others go on in between
        aad_of = partial(_additional_data, algorithm, version, item.binding)
        wrapped_key, nonce, body = seal_with_public_key(public_key, algorithm, item.plaintext.reveal(), aad_of)
        blobs.append(Blob(algorithm, version, nonce, body, wrapped_key).serialise())
    return blobs


def _additional_data(algorithm: Algorithm, version: KeyVersionRef, binding: Binding, wrapped_key: bytes) -> bytes:
    return additional_data(envelope.pack_header(algorithm, version, wrapped_key), binding)


async def _open(token: Token, share: Share, items: Sequence[DecryptItem], blobs: Sequence[Blob]) -> list[Plaintext]:
    """One round trip for each key version among the blobs; what was opened before a failure is wiped."""
    opened: dict[int, Plaintext] = {}
    try:
        for version in sorted({blob.key.version for blob in blobs}):
            positions = [position for position, blob in enumerate(blobs) if blob.key.version == version]
            requests = [_to_open(items[position], blobs[position]) for position in positions]
            first = blobs[positions[0]]
            plaintexts = await _open_uniformly(token, first.key, first.algorithm, requests, share)
            opened.update(zip(positions, plaintexts, strict=True))
    except BaseException:
        for plaintext in opened.values():
            plaintext.wipe()
        raise
    return [opened[position] for position in range(len(items))]


def _to_open(item: DecryptItem, blob: Blob) -> OpenItem:
    return OpenItem(
        nonce=blob.nonce,
        body=blob.body,
        aad=additional_data(blob.header, item.binding),
        where=item.where,
        wrapped_key=blob.wrapped_key,
    )


async def _open_uniformly(
    token: Token, version: KeyVersionRef, algorithm: Algorithm, requests: Sequence[OpenItem], share: Share
) -> list[Plaintext]:
    """Under RSA the return code would tell whether the padding of the wrapped key or the tag was wrong (Manger's
    attack), so not even the audit log gets it."""
    try:
        return await token.open(version, algorithm, requests, share=share)
    except InvalidCiphertext as error:
        if algorithm.oaep_hash is not None:
            error.ckr = ""
        raise
