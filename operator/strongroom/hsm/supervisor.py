# SPDX-License-Identifier: Apache-2.0
"""Keeps one worker alive: opens it, replaces it with backoff, and says how the token is.

What must outlive a worker lives here: the state, the backoff and the memory of refused PINs.
"""

import asyncio
import contextlib
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TypeVar

from strongroom.config import HsmConfig
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm import ckr, tokenfiles, wire
from strongroom.hsm.pin import PinFile, PinFileError, PinMemory
from strongroom.hsm.problems import start_problem, unavailable, unclear_login_problem
from strongroom.hsm.process import WorkerLost, WorkerProcess
from strongroom.hsm.values import TokenState

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")

_FIRST_ATTEMPT_SECONDS = 5.0
"""How long `start` waits for a token: one that hangs must not keep the operator from starting."""
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 30.0
_STABLE_SECONDS = 10.0
"""A worker that lived this long starts the backoff anew."""
_PIN_POLL_SECONDS = 1.0
"""How often the PIN file is read while its content is not to be tried."""
_MEMORY_LOOK_SECONDS = 10.0
_MAX_MEMORY_BYTES = 192 * 1024 * 1024
"""Resident. A fresh worker has 30 MB; SoftHSM 2.6.1 keeps up to 2 KB of every RSA value until C_Finalize."""
_FILES_SECONDS = 10.0
"""How long the PIN file and a token's directory may take."""
_INTERPRETER_SECONDS = 15.0
"""What starting an interpreter on a busy machine may take beside the first operation."""


class Supervisor:
    """Belongs to one event loop. `worker` is the one to ask, or None; then `problem` says why."""

    def __init__(
        self,
        config: HsmConfig,
        on_change: Callable[[], None],
        on_open: Callable[[int], None],
        on_grown: Callable[[WorkerProcess], Awaitable[None]],
    ) -> None:
        """`on_open` is called with the number of its sessions before a new worker becomes `worker`; `on_grown` with one
        that takes too much memory, to be ended when it has nothing to do."""
        self.worker: WorkerProcess | None = None
        self.state = TokenState.STARTING
        self.problem: StrongroomError | None = unavailable(config.name, "the token is being opened")
        self.starts = 0
        self.losses = 0
        self.logins = 0
        self.sessions = 0
        self._config = config
        self._profile = config.resolved_profile
        self._on_change = on_change
        self._on_open = on_open
        self._on_grown = on_grown
        self._pin_file = PinFile(config.pin_file)
        self._pins = PinMemory()
        self._pin_held = False
        """Whether all there is to do is to wait for another PIN, or for the time to try this one again."""
        self._failures = 0
        self._attempted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._process: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, and return after the first attempt, however it ended, or after 5 s."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"hsm-{self._config.name}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._attempted.wait(), _FIRST_ATTEMPT_SECONDS)

    async def close(self) -> None:
        """End the worker in good order. Announces nothing. Nothing is cancelled: each process is waited for."""
        self._stopping.set()
        self.state = TokenState.UNAVAILABLE
        self.problem = unavailable(self._config.name, "the operator is stopping")
        if self._process is not None:
            await self._process.close()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            self._pin_held = False
            try:
                await self._attend(await self._open_worker())
                began = loop.time()
            except _NotOpenedError as failure:
                self._failures += 1
                self._pin_held = failure.pin_held
                self._change(failure.state, failure.problem)
            except Exception as fault:  # of ours: the token must not stay away for it
                await self._start_over(fault)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._delay(loop.time() - began))

    async def _attend(self, worker: WorkerProcess) -> None:
        """From open to lost."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        self._on_open(self.sessions)
        self.worker = worker
        self._change(TokenState.AVAILABLE, None)
        cause = await self._watch(worker)
        self.worker = None
        if not self._stopping.is_set():
            self.losses += 1
            self._failures = 1 if loop.time() - opened_at >= _STABLE_SECONDS else self._failures + 1
            self._change(TokenState.UNAVAILABLE, unavailable(self._config.name, f"the library's process {cause}"))
        await worker.close()

    async def _watch(self, worker: WorkerProcess) -> str:
        """Until it is lost; the cause. One that has grown too large is to be replaced."""
        while True:
            await asyncio.wait([worker.lost], timeout=_MEMORY_LOOK_SECONDS)
            if worker.lost.done():
                return worker.lost.result()
            if worker.memory_bytes() > _MAX_MEMORY_BYTES:
                await self._on_grown(worker)

    async def _start_over(self, fault: Exception) -> None:
        """Type and place of the fault go to the log, its message does not: it could quote anything."""
        place = traceback.extract_tb(fault.__traceback__)[-1]
        _log.error(
            "HSM %r: unexpected %s in %s (%s:%s)",
            *(self._config.name, type(fault).__name__, place.name, Path(place.filename).name, place.lineno),
        )
        self._failures += 1
        self.worker = None
        self._change(TokenState.UNAVAILABLE, unavailable(self._config.name, "a fault in the operator, see its log"))
        if self._process is not None:
            await self._process.close()

    async def _open_worker(self) -> WorkerProcess:
        """A worker that is logged in and has its sessions. Raises _NotOpenedError."""
        pin = await self._read_pin()
        try:
            refusal = self._pins.refusal(pin)
            if refusal is not None:
                refused = refusal.reason is Reason.HSM_PIN_INVALID
                state = TokenState.PIN_INVALID if refused else TokenState.UNAVAILABLE
                raise _NotOpenedError(state, refusal, pin_held=True)
            try:
                await self._in_time(asyncio.to_thread(tokenfiles.refuse_open_files, self._config.environment))
            except tokenfiles.OpenFilesError as error:
                raise self._misconfigured(error.message, error.hint) from None
            worker = await self._spawn()
            try:
                await self._find_token(worker)
                await self._log_in(worker, pin)
                await self._open_sessions(worker)
            except BaseException:
                await worker.close()
                raise
            return worker
        finally:
            wire.wipe(pin)

    async def _read_pin(self) -> bytearray:
        """Empty if there is no login; the file is not read then."""
        if not self._profile.login:
            return bytearray()
        try:
            return await self._in_time(asyncio.to_thread(self._pin_file.read))
        except PinFileError as error:
            raise self._misconfigured(error.message, error.hint) from None

    async def _in_time(self, looking: Coroutine[None, None, _Found]) -> _Found:
        """Of files that may be on a mount that hangs."""
        try:
            async with asyncio.timeout(_FILES_SECONDS):
                return await looking
        except TimeoutError:
            problem = unavailable(self._config.name, f"its files do not answer within {_FILES_SECONDS:g} seconds")
            raise _NotOpenedError(TokenState.UNAVAILABLE, problem) from None

    async def _spawn(self) -> WorkerProcess:
        try:
            worker = await WorkerProcess.spawn(self._config.environment)
        except OSError as error:
            problem = unavailable(self._config.name, f"no process can be started for the library: {error.strerror}")
            raise _NotOpenedError(TokenState.UNAVAILABLE, problem) from None
        self.starts += 1
        self._process = worker
        if self._stopping.is_set():  # close() came too early to see this process
            worker.kill("was stopped")
        return worker

    async def _find_token(self, worker: WorkerProcess) -> None:
        """The worker asks the token how it is: one that hangs does so here, where no PIN is at stake."""
        config = self._config
        start = wire.Start(
            config.module, config.module_sha256, config.library_parameters, config.token_label, self._profile
        )
        try:
            reply = await worker.ask(start, timeout=config.operation_timeout_seconds + _INTERPRETER_SECONDS)
        except WorkerLost as lost:
            raise self._lost(lost.cause) from None
        match reply:
            case wire.Done():
                return
            case wire.Failed():
                raise _NotOpenedError(*start_problem(config, reply))
            case _:
                raise self._lost("sent what it must not")

    async def _log_in(self, worker: WorkerProcess, pin: bytearray) -> None:
        """Whatever comes back, the PIN may have been counted by the token: nothing but success is simply repeated."""
        self.logins += self._profile.login
        try:
            reply = await worker.ask(wire.LogIn(pin), timeout=self._config.operation_timeout_seconds)
        except WorkerLost as lost:
            raise self._unclear(pin, f"the library's process {lost.cause}", answered=False) from None
        match reply:
            case wire.Done():
                self._pins.accept(pin)
            case wire.Failed(failure=wire.Failure.LOGIN_UNCLEAR):
                raise self._unclear(pin, f"the token said {ckr.name_of(reply.ckr)}", answered=True)
            case wire.Failed():
                state, problem = start_problem(self._config, reply)
                refused = reply.failure is wire.Failure.LOGIN_REFUSED
                if refused:
                    self._pins.refuse(pin, problem)
                raise _NotOpenedError(state, problem, pin_held=refused)
            case _:
                raise self._unclear(pin, "the library's process sent what it must not", answered=False)

    def _unclear(self, pin: bytearray, what: str, *, answered: bool) -> "_NotOpenedError":
        """Nobody knows whether the token counted a wrong PIN. `what` is what happened."""
        problem = unavailable(self._config.name, what)
        if self._stopping.is_set() or not self._profile.login:
            return _NotOpenedError(TokenState.UNAVAILABLE, problem)
        seconds = self._pins.count_unclear(pin, answered=answered)
        if not seconds:
            return _NotOpenedError(TokenState.UNAVAILABLE, problem)
        problem = unclear_login_problem(self._config, what, seconds)
        self._pins.refuse(pin, problem, seconds)
        return _NotOpenedError(TokenState.UNAVAILABLE, problem, pin_held=True)

    async def _open_sessions(self, worker: WorkerProcess) -> None:
        """The PIN has been accepted: what fails here is none of its business."""
        request = wire.OpenSessions(self._config.wanted_sessions)
        try:
            reply = await worker.ask(request, timeout=self._config.operation_timeout_seconds)
        except WorkerLost as lost:
            raise self._lost(lost.cause) from None
        match reply:
            case wire.SessionsOpened() if 1 <= reply.sessions <= request.sessions:
                self.sessions = reply.sessions
            case wire.Failed():
                raise _NotOpenedError(*start_problem(self._config, reply))
            case _:
                raise self._lost("sent what it must not")

    def _lost(self, cause: str) -> "_NotOpenedError":
        problem = unavailable(self._config.name, f"the library's process {cause}")
        return _NotOpenedError(TokenState.UNAVAILABLE, problem)

    def _misconfigured(self, what: str, hint: str) -> "_NotOpenedError":
        return _NotOpenedError(TokenState.MISCONFIGURED, unavailable(self._config.name, what, hint=hint))

    def _change(self, state: TokenState, problem: StrongroomError | None) -> None:
        self._attempted.set()
        if self._stopping.is_set():
            return  # close() has said the last word
        changed = state is not self.state
        self.state = state
        self.problem = problem
        if changed:
            if problem is None:
                _log.info("HSM %r is available", self._config.name)
            else:
                _log.warning("%s", problem)
            asyncio.get_running_loop().call_soon(self._on_change)  # what it raises is not the supervision's

    def _delay(self, spent: float) -> float:
        """Seconds to the next attempt, when the last one took so long: the backoff is from start to start, so that an
        attempt that hung for its whole time is followed by another at once."""
        if self._pin_held:
            return _PIN_POLL_SECONDS
        longest = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 16))
        jittered = longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        return max(jittered - spent, _FIRST_RETRY_SECONDS / 2)


class _NotOpenedError(Exception):
    """`pin_held`: it is not to be tried with this PIN now, so the file is looked at for another one."""

    def __init__(self, state: TokenState, problem: StrongroomError, *, pin_held: bool = False) -> None:
        super().__init__(problem.message)
        self.state = state
        self.problem = problem
        self.pin_held = pin_held
