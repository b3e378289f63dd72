# SPDX-License-Identifier: Apache-2.0
"""One request, one answer: waits its turn, asks the worker, learns from what became of it."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

from strongroom.config import HsmConfig
from strongroom.errors import StrongroomError
from strongroom.hsm import wire
from strongroom.hsm.admission import Admission, QueueFull
from strongroom.hsm.problems import queue_problem, suspect_problem, unavailable
from strongroom.hsm.process import WorkerLost, WorkerProcess
from strongroom.hsm.supervisor import Supervisor
from strongroom.hsm.suspects import MEMORY_SECONDS, Standing, Suspects
from strongroom.hsm.values import Share

_MANAGEMENT_FACTOR = 10
"""How much longer than an operation on values may finding, generating and verifying take: they are many calls each."""
_AHEAD = 1
"""Requests that the worker has beyond one for each session: the next, there when a session is done, so that the token
does not wait for the way back and forth. It may take twice as long: it waits for one of the others first."""


class Exchange:
    """The requests to one token's worker. Belongs to one event loop.

    Values (Seal, Open) take one of the worker's sessions each. Everything else takes the worker's management session,
    and so goes one at a time, beside the values. A suspect has the whole worker to itself, and only once its key is
    seen to work: on a token that hangs whatever is asked, hanging says nothing of the request.
    """

    def __init__(self, config: HsmConfig, on_change: Callable[[], None], on_open: Callable[[], None]) -> None:
        """`on_open` is called before a new worker is asked for the first time."""
        self.supervisor = Supervisor(config, on_change, self._opened, self._replace)
        self.sessions = Admission(config.wanted_sessions + _AHEAD)
        self.management = Admission(1)
        self.in_flight = 0
        self._name = config.name
        self._timeout = config.operation_timeout_seconds
        self._on_open = on_open
        self._suspects = Suspects()

    async def ask(self, request: wire.Request, share: Share) -> wire.Reply:
        """The worker's answer. Raises StrongroomError: HSM_UNAVAILABLE or HSM_PIN_INVALID without a worker or when it
        is lost, HSM_ERROR for a suspect that is refused, THROTTLED if too many wait.

        A cancelled call returns at once; the C call goes on, keeps its session until it ends, and what it returns is
        wiped.
        """
        if isinstance(request, wire.Seal | wire.Open):
            return await self._ask_for_values(request, share)
        with ExitStack() as held:
            await self._take(self.management, share, held)
            worker = self._enter(held)
            return await self._answer(worker.ask(request, timeout=self._timeout * _MANAGEMENT_FACTOR), held)

    async def _ask_for_values(self, request: wire.Seal | wire.Open, share: Share) -> wire.Reply:
        digest = self._suspects.digest(request)
        standing = self._suspects.standing(digest)
        if standing is Standing.REFUSED:
            raise suspect_problem(self._name, MEMORY_SECONDS)
        alone = standing is Standing.SUSPECT
        with ExitStack() as held:
            if alone:
                await self._take(self.management, share, held)
                await self._take_all(self.sessions, share, held)
                await self._see_key_work(request.cka_id)
            else:
                await self._take(self.sessions, share, held)
            worker = self._enter(held)
            is_ahead = sum(self.sessions.held.values()) > self.supervisor.sessions
            future = worker.ask(request, timeout=self._timeout * (1 + is_ahead))
            future.add_done_callback(lambda done: self._learn(done, digest, alone=alone))
            return await self._answer(future, held)

    async def _answer(self, future: asyncio.Future[wire.Reply], held: ExitStack) -> wire.Reply:
        """What is `held` is let go when the worker is done, whether or not the caller waits for that."""
        release = held.pop_all().close
        future.add_done_callback(lambda _: release())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_drop)
            raise
        except WorkerLost as lost:
            raise unavailable(self._name, f"the library's process {lost.cause}") from None

    def lose(self, cause: str) -> None:
        """End the worker: its token or it itself cannot be relied on. `cause` completes "the library's process …"."""
        if self.supervisor.worker is not None:
            self.supervisor.worker.kill(cause)

    async def _see_key_work(self, cka_id: bytes) -> None:
        """Raises HSM_UNAVAILABLE if the worker is lost over the key itself."""
        with ExitStack() as held:
            await self._answer(self._enter(held).ask(wire.Verify(cka_id), timeout=self._timeout), held)

    async def _take(self, admission: Admission, share: Share, held: ExitStack) -> None:
        try:
            await admission.acquire(share)
        except QueueFull as full:
            raise queue_problem(self._name, full.waiting) from None
        held.callback(admission.release, share)

    async def _take_all(self, admission: Admission, share: Share, held: ExitStack) -> None:
        """Whoever takes both kinds takes the management's first, always."""
        try:
            await admission.acquire_all(share)
        except QueueFull as full:
            raise queue_problem(self._name, full.waiting) from None
        held.callback(admission.release, share)

    def _enter(self, held: ExitStack) -> WorkerProcess:
        """The worker, to be asked now."""
        self.in_flight += 1
        held.callback(self._leave)
        if self.supervisor.worker is None:
            raise self._away()
        return self.supervisor.worker

    def _leave(self) -> None:
        self.in_flight -= 1

    def _opened(self, sessions: int) -> None:
        self.sessions.resize(sessions + _AHEAD)
        self._on_open()

    async def _replace(self, worker: WorkerProcess) -> None:
        """End this worker between two requests: nobody's fails for it."""
        with ExitStack() as held:
            await self._take(self.management, Share.RECONCILE, held)
            await self._take_all(self.sessions, Share.RECONCILE, held)
            worker.kill("used too much memory and is replaced")

    def _learn(self, done: asyncio.Future[wire.Reply], digest: bytes, *, alone: bool) -> None:
        error = done.exception()
        if error is None:
            self._suspects.clear(digest)
        elif isinstance(error, WorkerLost) and error.by_request:
            self._suspects.blame(digest, alone=alone)

    def _away(self) -> StrongroomError:
        """A fresh error each time: exceptions collect tracebacks."""
        known = self.supervisor.problem
        if known is None:
            return unavailable(self._name, "the library's process has just ended")
        return StrongroomError(known.reason, known.message, hint=known.hint, ckr=known.ckr)


def _drop(future: asyncio.Future[wire.Reply]) -> None:
    """The caller has gone: nobody may see the result."""
    if future.exception() is None:
        reply = future.result()
        if isinstance(reply, wire.OpenedValues):
            reply.wipe()
