# SPDX-License-Identifier: Apache-2.0
"""Keeps one worker alive: opens it, replaces it with backoff, and says how the token is.

What must outlive a worker lives here: the state, the backoff and the memory of refused PINs.
"""

import asyncio
import contextlib
import logging
import random
import re
import traceback
from collections.abc import Callable
from pathlib import Path

from strongroom.config import HsmConfig
from strongroom.errors import StrongroomError
from strongroom.hsm import wire
from strongroom.hsm.pin import PinFile, PinFileError, PinMemory
from strongroom.hsm.problems import start_problem, unanswered_problem, unavailable
from strongroom.hsm.process import WorkerLost, WorkerProcess
from strongroom.hsm.values import TokenState

_log = logging.getLogger(__name__)

_FIRST_ATTEMPT_SECONDS = 5.0
"""How long `start` waits for a token: one that hangs must not keep the operator from starting."""
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 30.0
_STABLE_SECONDS = 10.0
"""A worker that lived this long starts the backoff anew."""
_PIN_POLL_SECONDS = 1.0
"""How often the PIN file is read after the token refused its content."""
_MAX_UNANSWERED_LOGINS = 3
"""Logins with one PIN that may end in a crash or a hang: each may have cost a try, and tokens allow 3 to 10."""
_INTERPRETER_SECONDS = 15.0
"""What starting an interpreter on a busy machine may take beside the first operation."""

_SPY_LIBRARY = re.compile(r"pkcs11[-_]spy", re.IGNORECASE)
_SPY_VARIABLE = "PKCS11SPY"
"""OpenSC's spy writes every call, with PINs and plaintexts, to a file; its variables start with this."""


class Supervisor:
    """Belongs to one event loop. `worker` is the one to ask, or None; then `problem` says why."""

    def __init__(self, config: HsmConfig, on_change: Callable[[], None]) -> None:
        self.worker: WorkerProcess | None = None
        self.state = TokenState.STARTING
        self.problem: StrongroomError | None = unavailable(config.name, "the token is being opened")
        self.starts = 0
        self.losses = 0
        self.logins = 0
        self._config = config
        self._on_change = on_change
        self._pin_file = PinFile(config.pin_file)
        self._pins = PinMemory()
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
        while not self._stopping.is_set():
            try:
                await self._attend(await self._open_worker())
            except _NotOpenedError as failure:
                self._failures += 1
                self._change(failure.state, failure.problem)
            except Exception as fault:  # of ours: the token must not stay away for it
                await self._start_over(fault)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._delay())

    async def _attend(self, worker: WorkerProcess) -> None:
        """From open to lost."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        self.worker = worker
        self._change(TokenState.AVAILABLE, None)
        cause = await worker.lost
        self.worker = None
        if not self._stopping.is_set():
            self.losses += 1
            self._failures = 1 if loop.time() - opened_at >= _STABLE_SECONDS else self._failures + 1
            self._change(TokenState.UNAVAILABLE, unavailable(self._config.name, f"the library's process {cause}"))
        await worker.close()

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
        """A worker that is logged in. Raises _NotOpenedError."""
        self._refuse_spies()
        try:
            pin = await asyncio.to_thread(self._pin_file.read)
        except PinFileError as error:
            raise self._misconfigured(error.message, error.hint) from None
        try:
            refusal = self._pins.refusal(pin)
            if refusal is not None:
                raise _NotOpenedError(TokenState.PIN_INVALID, refusal)
            worker = await self._spawn()
            try:
                await self._find_token(worker)
                await self._log_in(worker, pin)
            except BaseException:
                await worker.close()
                raise
            return worker
        finally:
            wire.wipe(pin)

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
        config = self._config
        start = wire.Start(config.module, config.module_sha256, config.token_label)
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
        config = self._config
        self.logins += 1
        try:
            reply = await worker.ask(wire.LogIn(pin, config.sessions), timeout=config.operation_timeout_seconds)
        except WorkerLost as lost:
            raise self._unanswered(pin, lost.cause) from None
        match reply:
            case wire.Done():
                self._pins.accept(pin)
            case wire.Failed():
                state, problem = start_problem(config, reply)
                if reply.failure is wire.Failure.LOGIN_REFUSED:
                    self._pins.refuse(pin, problem)
                raise _NotOpenedError(state, problem)
            case _:
                raise self._unanswered(pin, "sent what it must not")

    def _unanswered(self, pin: bytearray, cause: str) -> "_NotOpenedError":
        if self._stopping.is_set():
            return self._lost(cause)
        times = self._pins.count_unanswered(pin)
        if times < _MAX_UNANSWERED_LOGINS:
            return self._lost(cause)
        problem = unanswered_problem(self._config, times, cause)
        self._pins.refuse(pin, problem)
        return _NotOpenedError(TokenState.PIN_INVALID, problem)

    def _lost(self, cause: str) -> "_NotOpenedError":
        problem = unavailable(self._config.name, f"the library's process {cause}")
        return _NotOpenedError(TokenState.UNAVAILABLE, problem)

    def _refuse_spies(self) -> None:
        module = Path(self._config.module)
        names = (module.name, module.resolve().name)
        variables = [name for name in self._config.environment if name.upper().startswith(_SPY_VARIABLE)]
        if variables or any(_SPY_LIBRARY.search(name) for name in names):
            raise self._misconfigured(
                f"{', '.join(variables) or module} traces PKCS#11 calls, with PINs and plaintexts",
                "Remove it from the configuration",
            )

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

    def _delay(self) -> float:
        if self.state is TokenState.PIN_INVALID:
            return _PIN_POLL_SECONDS
        longest = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


class _NotOpenedError(Exception):
    def __init__(self, state: TokenState, problem: StrongroomError) -> None:
        super().__init__(problem.message)
        self.state = state
        self.problem = problem
