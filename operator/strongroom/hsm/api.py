# SPDX-License-Identifier: Apache-2.0
"""`Token`: the one way to a key in the HSM."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NoReturn, TypeVar

from strongroom.config import HsmConfig
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import label as labels
from strongroom.hsm import wire
from strongroom.hsm.label import KeyLabel
from strongroom.hsm.problems import operation_problem, suspect_problem, twins_problem, unavailable
from strongroom.hsm.process import WorkerLost, WorkerProcess
from strongroom.hsm.supervisor import Supervisor
from strongroom.hsm.suspects import MEMORY_SECONDS, Standing, Suspects
from strongroom.hsm.values import KeyMaterial, OpenItem, Sealed, SealItem, TokenInfo, TokenState, TokenStatistics
from strongroom.model.ids import KeyId, KeyVersionRef
from strongroom.model.limits import MAX_VALUES, NONCE_BYTES, TAG_BYTES
from strongroom.model.plaintext import Plaintext

__all__ = [
    "KeyLabel",
    "KeyMaterial",
    "OpenItem",
    "SealItem",
    "Sealed",
    "Token",
    "TokenInfo",
    "TokenState",
    "TokenStatistics",
]

_MAX_WAITING = 1024
"""Requests that may wait for a session; more are refused (Throttled) rather than kept with their plaintexts."""

_MANAGEMENT_FACTOR = 10
"""How much longer than an operation on values may finding, generating and verifying take: they are many calls each."""

_Reply = TypeVar("_Reply", bound=wire.Reply)


class Token:
    """One PKCS#11 token in a process of its own. Belongs to one event loop, in a thread that outlives it.

    Every operation raises StrongroomError:

    - HSM_UNAVAILABLE, HSM_PIN_INVALID: the token cannot be used now; an operation under way when its process died may
      or may not have happened. `state` tells when to try again.
    - HSM_ERROR: the token works and refuses.
    - KEY_VERSION_NOT_FOUND, KEY_CONFLICT: no such key on a healthy token; several of them.
    - THROTTLED: more than 1024 requests wait already.

    As many requests run at a time as there are sessions. A seal or open that takes longer than
    `operation_timeout_seconds` counts as hung and costs the worker; everything else has ten times that long. A request
    that seems to crash or hang the library again and again is refused for a while (`suspects`). A cancelled call
    returns at once, but its C call cannot be stopped: it keeps its session until it ends, and its result is dropped and
    wiped.
    """

    def __init__(self, config: HsmConfig, *, on_change: Callable[[], None] = lambda: None) -> None:
        """`on_change` is called on the loop whenever `state` has changed."""
        self.name = config.name
        self._timeout = config.operation_timeout_seconds
        self._supervisor = Supervisor(config, on_change)
        self._suspects = Suspects()
        self._twins: frozenset[KeyVersionRef] = frozenset()
        """Of what the token held several when it was last looked through; sessions may still know one of each."""
        self._session_count = config.sessions
        self._sessions = asyncio.Semaphore(config.sessions)
        self._isolation = asyncio.Lock()
        """Two that collect all sessions would wait for each other for ever."""
        self._creation = asyncio.Lock()
        """One key is created at a time: SoftHSM 2.6.1 fails on some when two are created at once."""
        self._in_flight = 0
        self._waiting = 0
        self._operations: Counter[str] = Counter()
        self._values: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    @property
    def state(self) -> TokenState:
        """Whether the token can be used."""
        return self._supervisor.state

    @property
    def available(self) -> bool:
        """Whether `state` is AVAILABLE."""
        return self.state is TokenState.AVAILABLE

    @property
    def problem(self) -> StrongroomError | None:
        """Why the token cannot be used; None while it can."""
        return self._supervisor.problem

    @property
    def statistics(self) -> TokenStatistics:
        """Counts up to now."""
        return TokenStatistics(
            operations=dict(self._operations),
            failures=dict(self._failures),
            values=dict(self._values),
            worker_starts=self._supervisor.starts,
            worker_losses=self._supervisor.losses,
            logins=self._supervisor.logins,
            in_flight=self._in_flight,
            waiting=self._waiting,
        )

    async def start(self) -> None:
        """Open the token; returns after the first attempt, or after 5 s. Never raises for a token that cannot be
        opened: it keeps trying. Once only."""
        await self._supervisor.start()

    async def close(self) -> None:
        """End the worker with C_Finalize, within 10 s. What is in flight fails with HSM_UNAVAILABLE."""
        await self._supervisor.close()

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

    async def seal(self, key: KeyVersionRef, items: Sequence[SealItem]) -> list[Sealed]:
        """Encrypt with AES-256-GCM in the token: all, in order, in one round trip. At most 64 (ValueError).

        Each attempt draws fresh nonces: random bytes of the token XOR random bytes of the kernel.
        """
        if not items:
            return []
        _check_count(items)
        self._refuse_twins(key)
        values = [wire.SealValue(bytearray(item.plaintext.reveal()), item.aad) for item in items]
        try:
            answer = await self._ask("seal", wire.Seal(labels.pack_id(key), values), wire.SealedValues, ref=key)
        finally:
            for value in values:
                wire.wipe(value.plaintext)
        sealed = [Sealed(value.nonce, value.body) for value in answer.values]
        expected = [(NONCE_BYTES, len(item.plaintext) + TAG_BYTES) for item in items]
        if [(len(value.nonce), len(value.body)) for value in sealed] != expected:
            self._distrust_worker()
        self._values["seal"] += len(items)
        return sealed

    async def open(self, key: KeyVersionRef, items: Sequence[OpenItem]) -> list[Plaintext]:
        """Decrypt: all, in order, in one round trip. At most 64 (ValueError).

        Raises InvalidCiphertext, with its `where`, for the first value that does not authenticate; what was decrypted
        before it is wiped. A forged value costs its sender only: the token stays available to everyone.
        """
        if not items:
            return []
        _check_count(items)
        self._refuse_twins(key)
        request = wire.Open(labels.pack_id(key), [wire.OpenValue(item.nonce, item.body, item.aad) for item in items])
        answer = await self._ask("open", request, wire.OpenedValues, ref=key, where=[item.where for item in items])
        try:
            if [len(value) for value in answer.values] != [len(item.body) - TAG_BYTES for item in items]:
                self._distrust_worker()
            self._values["open"] += len(items)
            return [Plaintext(value) for value in answer.values]
        finally:
            answer.wipe()

    async def find(self, key_id: KeyId) -> list[KeyMaterial]:
        """Every key object of this id, in no particular order; twins show twice. Looks at every AES key of the token:
        not for each request."""
        return self._materials(await self._ask("find", wire.Find(key_id.bytes), wire.FoundKeys))

    async def find_all(self) -> list[KeyMaterial]:
        """Every AES key object whose id is one of ours, whoever made it: its label says who. From then on, until the
        next time, twins are refused by `seal` and `open` with KEY_CONFLICT."""
        materials = self._materials(await self._ask("find", wire.Find(b""), wire.FoundKeys))
        counts = Counter(material.ref for material in materials)
        self._twins = frozenset(ref for ref, count in counts.items() if count > 1)
        return materials

    async def generate(self, ref: KeyVersionRef, label: KeyLabel) -> KeyMaterial:
        """A new AES-256 key that never leaves the token, verified as by `verify`. The label names the same version.

        Raises KEY_EXISTS if any object carries the id, KEY_CONFLICT if another writer made one at the same time;
        nothing is deleted in either case. PKCS#11 has no create-if-absent: one writer per key id is the caller's part.
        After HSM_UNAVAILABLE the key may exist: `find` it before trying again.
        """
        if label.version != ref.version:
            raise ValueError("the label names another version")
        request = wire.Generate(labels.pack_id(ref), label.format())
        materials = self._materials(await self._ask("generate", request, wire.FoundKeys, ref=ref))
        if [material.ref for material in materials] != [ref]:
            self._distrust_worker()
        return materials[0]

    async def verify(self, ref: KeyVersionRef) -> None:
        """Prove by behaviour that the key is safe: its value cannot be read, nor wrapped by a key made for that (where
        the token can wrap at all), altered tags and additional data are refused, and it may only encrypt and decrypt.
        Raises HSM_ERROR otherwise."""
        await self._ask("verify", wire.Verify(labels.pack_id(ref)), wire.Done, ref=ref)

    def _refuse_twins(self, key: KeyVersionRef) -> None:
        if key in self._twins:
            raise twins_problem(self.name, key)

    async def _ask(
        self,
        kind: str,
        request: wire.Request,
        expected: type[_Reply],
        *,
        ref: KeyVersionRef | None = None,
        where: Sequence[str] = (),
    ) -> _Reply:
        """One round trip, counted."""
        try:
            reply = await self._exchange(request)
            if isinstance(reply, wire.Failed):
                raise self._failure(reply, ref, where)
            if not isinstance(reply, expected):
                self._distrust_worker()
        except StrongroomError as error:
            self._failures[error.reason.value] += 1
            raise
        self._operations[kind] += 1
        return reply

    async def _exchange(self, request: wire.Request) -> wire.Reply:
        digest = self._suspects.digest(request)
        standing = self._suspects.standing(digest)
        if standing is Standing.REFUSED:
            raise suspect_problem(self.name, MEMORY_SECONDS)
        alone = standing is Standing.SUSPECT
        on_values = isinstance(request, wire.Seal | wire.Open)
        with ExitStack() as held:
            worker = await self._take_session(request, held, alone=alone)
            future = worker.ask(request, timeout=self._timeout * (1 if on_values else _MANAGEMENT_FACTOR))
            release = held.pop_all().close  # when the worker is done, whether or not the caller waits for it
            future.add_done_callback(lambda _: release())
            future.add_done_callback(lambda done: self._learn(done, digest, alone=alone))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_drop)
            raise
        except WorkerLost as lost:
            raise unavailable(self.name, f"the library's process {lost.cause}") from None

    def _learn(self, done: asyncio.Future[wire.Reply], digest: bytes, *, alone: bool) -> None:
        error = done.exception()
        if error is None:
            self._suspects.clear(digest)
        elif isinstance(error, WorkerLost) and error.by_request:
            self._suspects.blame(digest, alone=alone)

    async def _take_session(self, request: wire.Request, held: ExitStack, *, alone: bool) -> WorkerProcess:
        """The worker, to be asked now, with nothing else in flight if `alone`. What was waited for goes into `held`."""
        if self._waiting >= _MAX_WAITING:
            raise StrongroomError(
                Reason.THROTTLED, f"HSM {self.name!r}: {self._waiting} requests wait already", hint="Try again later"
            )
        self._waiting += 1
        try:
            if isinstance(request, wire.Generate | wire.Verify):
                await self._creation.acquire()
                held.callback(self._creation.release)
            if alone:
                await self._isolation.acquire()
                held.callback(self._isolation.release)
            for _ in range(self._session_count if alone else 1):
                await self._sessions.acquire()
                held.callback(self._sessions.release)
        finally:
            self._waiting -= 1
        self._in_flight += 1
        held.callback(self._leave)
        if self._supervisor.worker is None:
            raise self._away()
        return self._supervisor.worker

    def _leave(self) -> None:
        self._in_flight -= 1

    def _away(self) -> StrongroomError:
        """A fresh error each time: exceptions collect tracebacks."""
        known = self.problem
        if known is None:
            return unavailable(self.name, "the library's process has just ended")
        return StrongroomError(known.reason, known.message, hint=known.hint, ckr=known.ckr)

    def _failure(self, failed: wire.Failed, ref: KeyVersionRef | None, where: Sequence[str]) -> StrongroomError:
        if failed.failure is wire.Failure.UNAVAILABLE and self._supervisor.worker is not None:
            self._supervisor.worker.kill("lost its token")
        named = where[failed.index] if 0 <= failed.index < len(where) else "the value"
        return operation_problem(self.name, failed, ref=ref, where=named)

    def _materials(self, found: wire.FoundKeys) -> list[KeyMaterial]:
        materials = []
        for key in found.keys:
            ref = labels.parse_id(key.cka_id)
            if ref is None:
                self._distrust_worker()
            materials.append(KeyMaterial(ref, KeyLabel.parse(key.label), key.never_extractable))
        return materials

    def _distrust_worker(self) -> NoReturn:
        """An answer that fits its type but not the question."""
        if self._supervisor.worker is not None:
            self._supervisor.worker.kill("sent what it must not")
        raise unavailable(self.name, "the library's process sent what it must not")


def _check_count(items: Sequence[object]) -> None:
    if len(items) > MAX_VALUES:
        raise ValueError(f"{len(items)} values at once, at most {MAX_VALUES} are allowed")


def _drop(future: asyncio.Future[wire.Reply]) -> None:
    """The caller has gone: nobody may see the result."""
    if future.exception() is None:
        reply = future.result()
        if isinstance(reply, wire.OpenedValues):
            reply.wipe()
