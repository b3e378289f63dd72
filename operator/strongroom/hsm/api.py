# SPDX-License-Identifier: Apache-2.0
"""`Token`: the one way to a key in the HSM."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from strongroom.config import HsmConfig
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import label as labels
from strongroom.hsm import wire
from strongroom.hsm.exchange import Exchange
from strongroom.hsm.label import KeyLabel
from strongroom.hsm.problems import (
    UnsafeKeyError,
    no_key_problem,
    operation_problem,
    queue_problem,
    twins_problem,
    unavailable,
)
from strongroom.hsm.publickey import UnsoundKeyError, sound_public_key
from strongroom.hsm.values import (
    KeyMaterial,
    OpenItem,
    Sealed,
    SealItem,
    Share,
    TokenInfo,
    TokenState,
    TokenStatistics,
)
from strongroom.model.algorithms import BLOCK_BYTES, Algorithm
from strongroom.model.ids import KeyId, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.limits import MAX_VALUES
from strongroom.model.plaintext import Plaintext

__all__ = [
    "KeyLabel",
    "KeyMaterial",
    "OpenItem",
    "SealItem",
    "Sealed",
    "Share",
    "Token",
    "TokenInfo",
    "TokenState",
    "TokenStatistics",
]

_Reply = TypeVar("_Reply", bound=wire.Reply)


class Token:
    """One PKCS#11 token in a process of its own. Belongs to one event loop, in a thread that outlives it.

    Every operation raises StrongroomError:

    - HSM_UNAVAILABLE, HSM_PIN_INVALID: the token cannot be used now; an operation under way when its process died may
      or may not have happened. `state` tells when to try again.
    - HSM_ERROR: the token works and refuses.
    - KEY_VERSION_NOT_FOUND, KEY_CONFLICT: no such key on a healthy token; several of them.
    - THROTTLED: more than 512 requests of this share, or about keys, wait already, or `api_places` of the API are
      taken.

    As many seals and opens run at a time as there are sessions, shared out fairly (`admission`); one request about
    keys runs beside them. A seal or open that takes longer than `operation_timeout_seconds` counts as hung and costs
    the worker; everything else has ten times that long. A request that seems to crash or hang the library again and
    again is refused for a while (`suspects`). A cancelled call returns at once, but its C call cannot be stopped: it
    keeps its session until it ends, and its result is dropped and wiped.
    """

    def __init__(
        self, config: HsmConfig, *, on_change: Callable[[], None] = lambda: None, api_places: int | None = None
    ) -> None:
        """`on_change` is called on the loop whenever `state` has changed. Of the API at most `api_places` requests for
        seal, open and public_key are in here at once, so that a token that hangs cannot hold all that the API can
        serve; None: no such limit."""
        self.name = config.name
        self._api_places = api_places
        self._api_requests = 0
        self._profile = config.resolved_profile
        self._exchange = Exchange(config, on_change, self._start_anew)
        self._twins: frozenset[KeyVersionRef] = frozenset()
        """Of what the token held several when it was last looked through; sessions may still know one of each."""
        self._public_keys: dict[KeyVersionRef, bytes] = {}
        self._proved: set[KeyVersionRef] = set()
        """Both of the present worker: another one may find another token."""
        self._unsafe: dict[KeyVersionRef, StrongroomError] = {}
        """What the last `verify` found wrong with keys; they are not used before it finds them right."""
        self._asking_public_key = asyncio.Lock()
        """Many who want the same one ask once."""
        self._operations: Counter[str] = Counter()
        self._values: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    @property
    def state(self) -> TokenState:
        """Whether the token can be used."""
        return self._exchange.supervisor.state

    @property
    def available(self) -> bool:
        """Whether `state` is AVAILABLE."""
        return self.state is TokenState.AVAILABLE

    @property
    def problem(self) -> StrongroomError | None:
        """Why the token cannot be used; None while it can."""
        return self._exchange.supervisor.problem

    @property
    def statistics(self) -> TokenStatistics:
        """Counts up to now."""
        exchange, supervisor = self._exchange, self._exchange.supervisor
        waiting = {share.value: count for share, count in exchange.sessions.waiting.items()}
        return TokenStatistics(
            operations=dict(self._operations),
            failures=dict(self._failures),
            values=dict(self._values),
            worker_starts=supervisor.starts,
            worker_losses=supervisor.losses,
            logins=supervisor.logins,
            sessions=supervisor.sessions,
            in_flight=exchange.in_flight,
            waiting={**waiting, "management": sum(exchange.management.waiting.values())},
        )

    async def start(self) -> None:
        """Open the token; returns after the first attempt, or after 5 s. Never raises for a token that cannot be
        opened: it keeps trying. Once only."""
        await self._exchange.supervisor.start()

    async def close(self) -> None:
        """End the worker with C_Finalize, within 10 s. What is in flight fails with HSM_UNAVAILABLE."""
        await self._exchange.supervisor.close()

    def algorithm(self, spec: KeySpec) -> Algorithm | None:
        """Algorithm of new values under a key of this kind, as the token's profile says; None: it has no such keys."""
        return self._profile.algorithm(spec)

    async def info(self) -> TokenInfo:
        """What the token says of itself, asked now; so also a check that it answers."""
        found = await self._ask("info", wire.DescribeToken(), wire.TokenDescription)
        return TokenInfo(
            label=found.label,
            manufacturer=found.manufacturer,
            model=found.model,
            serial=found.serial,
            firmware=found.firmware,
        )

    async def seal(
        self, key: KeyVersionRef, algorithm: Algorithm, items: Sequence[SealItem], *, share: Share
    ) -> list[Sealed]:
        """Encrypt under an AES key in the token: all, in order, in one round trip. At most 64, and never with an
        algorithm that seals with a public key (ValueError).

        Each attempt has fresh nonces, from where the token's profile says.
        """
        _check_count(items)
        if algorithm.oaep_hash is not None:
            raise ValueError("values are sealed with a public key outside the token")
        if not items:
            return []
        self._refuse_unfit(key)
        with self._place(share):
            return await self._seal(key, algorithm, items, share)

    async def _seal(
        self, key: KeyVersionRef, algorithm: Algorithm, items: Sequence[SealItem], share: Share
    ) -> list[Sealed]:
        values = [wire.SealValue(bytearray(item.plaintext.reveal()), item.aad) for item in items]
        try:
            request = wire.Seal(labels.pack_id(key), algorithm, values)
            answer = await self._ask("seal", request, wire.SealedValues, share=share, ref=key)
        finally:
            for value in values:
                wire.wipe(value.plaintext)
        expected = [
            (algorithm.nonce_bytes, algorithm.ciphertext_bytes(len(item.plaintext)) + algorithm.tag_bytes)
            for item in items
        ]
        if [(len(value.nonce), len(value.body)) for value in answer.values] != expected:
            self._distrust_worker()
        self._values["seal"] += len(items)
        return [Sealed(value.nonce, value.body) for value in answer.values]

    async def open(
        self, key: KeyVersionRef, algorithm: Algorithm, items: Sequence[OpenItem], *, share: Share
    ) -> list[Plaintext]:
        """Decrypt: all, in order, in one round trip. At most 64 (ValueError).

        Raises InvalidCiphertext, with its `where`, for the first value that does not authenticate; what was decrypted
        before it is wiped. A forged value costs its sender only: the token stays available to everyone.
        """
        _check_count(items)
        if not items:
            return []
        self._refuse_unfit(key)
        with self._place(share):
            return await self._open(key, algorithm, items, share)

    async def _open(
        self, key: KeyVersionRef, algorithm: Algorithm, items: Sequence[OpenItem], share: Share
    ) -> list[Plaintext]:
        values = [wire.OpenValue(item.wrapped_key, item.nonce, item.body, item.aad) for item in items]
        request = wire.Open(labels.pack_id(key), algorithm, values)
        where = [item.where for item in items]
        answer = await self._ask("open", request, wire.OpenedValues, share=share, ref=key, where=where)
        try:
            if len(answer.values) != len(items) or not all(
                _fits(algorithm, len(item.body), len(value)) for item, value in zip(items, answer.values, strict=True)
            ):
                self._distrust_worker()
            self._values["open"] += len(items)
            return [Plaintext(value) for value in answer.values]
        finally:
            answer.wipe()

    async def find(self, key_id: KeyId) -> list[KeyMaterial]:
        """Every key of this id, in no particular order; twins show twice. Looks at every key of the token: not for each
        request."""
        return self._materials(await self._ask("find", wire.Find(key_id.bytes), wire.FoundKeys))

    async def find_all(self) -> list[KeyMaterial]:
        """Every key whose id is one of ours, whoever made it: its label says who. From then on, until the next time,
        twins are refused by `seal` and `open` with KEY_CONFLICT."""
        materials = self._materials(await self._ask("find", wire.Find(b""), wire.FoundKeys))
        counts = Counter(material.ref for material in materials)
        self._twins = frozenset(ref for ref, count in counts.items() if count > 1)
        return materials

    async def public_key(self, ref: KeyVersionRef) -> bytes:
        """DER SubjectPublicKeyInfo of an RSA key; empty for AES. Asked of the token once in a worker's life, so known
        only while the token is available. For the API."""
        with self._place(Share.API):
            async with self._asking_public_key:
                return await self._public_key(ref)

    async def _public_key(self, ref: KeyVersionRef) -> bytes:
        known = self._public_keys.get(ref)
        if known is not None and self._exchange.supervisor.worker is not None:
            return known
        self._refuse_unfit(ref)
        materials = self._materials(
            await self._ask("find", wire.Find(labels.pack_id(ref)), wire.FoundKeys, share=Share.API)
        )
        if any(material.ref != ref for material in materials):
            self._distrust_worker()
        if not materials:
            raise no_key_problem(self.name, ref)
        if len(materials) > 1:
            raise twins_problem(self.name, ref)
        self._public_keys[ref] = materials[0].public_key
        return materials[0].public_key

    async def generate(self, ref: KeyVersionRef, label: KeyLabel, spec: KeySpec) -> KeyMaterial:
        """A new key of this kind that never leaves the token, verified as by `verify`. `label` names the same version.

        Raises KEY_EXISTS if any object carries the id, KEY_CONFLICT if another writer made one at the same time;
        nothing is deleted in either case. PKCS#11 has no create-if-absent: one writer per key id is the caller's part.
        HSM_ERROR if the token's profile has no such keys. After HSM_UNAVAILABLE the key may exist: `find` it before
        trying again.
        """
        if label.version != ref.version:
            raise ValueError("the label names another version")
        request = wire.Generate(labels.pack_id(ref), label.format(), spec)
        material = self._the_one(await self._ask("generate", request, wire.FoundKeys, ref=ref), ref)
        if material.spec is not spec:
            self._distrust_worker()
        return material

    async def verify(self, ref: KeyVersionRef) -> KeyMaterial:
        """Prove by behaviour that the key is safe: its value cannot be read, nor wrapped by a key made for that (where
        the token can wrap at all), altered tags and additional data are refused, and it may do no more than its kind
        needs. Raises HSM_ERROR otherwise; a key that was found unsafe is then refused by `seal`, `open` and
        `public_key`, too, until it is proved."""
        try:
            answer = await self._ask("verify", wire.Verify(labels.pack_id(ref)), wire.FoundKeys, ref=ref)
        except UnsafeKeyError as error:
            self._unsafe[ref] = error
            raise
        material = self._the_one(answer, ref)
        self._unsafe.pop(ref, None)
        self._proved.add(ref)
        return material

    def proved(self, ref: KeyVersionRef) -> bool:
        """Whether `verify` found the key right since the library was last started."""
        return ref in self._proved

    @contextmanager
    def _place(self, share: Share) -> Iterator[None]:
        if share is not Share.API:
            yield
            return
        if self._api_places is not None and self._api_requests >= self._api_places:
            self._failures[Reason.THROTTLED.value] += 1
            raise queue_problem(self.name, self._api_requests)
        self._api_requests += 1
        try:
            yield
        finally:
            self._api_requests -= 1

    def _refuse_unfit(self, key: KeyVersionRef) -> None:
        if key in self._twins:
            raise twins_problem(self.name, key)
        if key in self._unsafe:
            known = self._unsafe[key]
            raise StrongroomError(known.reason, known.message, hint=known.hint, ckr=known.ckr)

    def _start_anew(self) -> None:
        self._public_keys.clear()
        self._proved.clear()

    async def _ask(
        self,
        kind: str,
        request: wire.Request,
        expected: type[_Reply],
        *,
        share: Share = Share.RECONCILE,
        ref: KeyVersionRef | None = None,
        where: Sequence[str] = (),
    ) -> _Reply:
        """One round trip, counted."""
        try:
            reply = await self._exchange.ask(request, share)
            if isinstance(reply, wire.Failed):
                raise self._failure(reply, ref, where)
            if not isinstance(reply, expected):
                self._distrust_worker()
        except StrongroomError as error:
            self._failures[error.reason.value] += 1
            raise
        self._operations[kind] += 1
        return reply

    def _failure(self, failed: wire.Failed, ref: KeyVersionRef | None, where: Sequence[str]) -> StrongroomError:
        if failed.failure is wire.Failure.UNAVAILABLE:
            self._exchange.lose("lost its token")
        named = where[failed.index] if 0 <= failed.index < len(where) else "the value"
        return operation_problem(self.name, failed, ref=ref, where=named)

    def _materials(self, found: wire.FoundKeys) -> list[KeyMaterial]:
        materials = []
        for key in found.keys:
            ref = labels.parse_id(key.cka_id)
            if ref is None:
                self._distrust_worker()
            try:
                public_key = sound_public_key(key)
            except UnsoundKeyError:
                self._distrust_worker()
            label = KeyLabel.parse(key.label)
            materials.append(KeyMaterial(ref, label, key.spec, public_key, key.never_extractable))
        return materials

    def _the_one(self, found: wire.FoundKeys, ref: KeyVersionRef) -> KeyMaterial:
        materials = self._materials(found)
        if [material.ref for material in materials] != [ref]:
            self._distrust_worker()
        return materials[0]

    def _distrust_worker(self) -> NoReturn:
        """An answer that fits its type but not the question."""
        self._exchange.lose("sent what it must not")
        raise unavailable(self.name, "the library's process sent what it must not")


def _check_count(items: Sequence[object]) -> None:
    if len(items) > MAX_VALUES:
        raise ValueError(f"{len(items)} values at once, at most {MAX_VALUES} are allowed")


def _fits(algorithm: Algorithm, body_bytes: int, plaintext_bytes: int) -> bool:
    """Whether so long a plaintext can come out of so long a body."""
    longest = algorithm.plaintext_bytes(body_bytes - algorithm.tag_bytes)
    if longest is None:
        return False
    if algorithm is Algorithm.AES_256_CBC_HMAC_SHA256:
        return longest - BLOCK_BYTES < plaintext_bytes <= longest
    return plaintext_bytes == longest
