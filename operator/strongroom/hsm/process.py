# SPDX-License-Identifier: Apache-2.0
"""A worker process as the operator sees it: started, asked, watched, ended.

Whatever goes wrong with a worker (it ends, hangs, sends garbage) has one outcome: it is killed, every request in
flight fails with WorkerLost at once, and `lost` is set. A new one is `Token`'s business.
"""

import asyncio
import itertools
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path

from strongroom.hsm import wire

WORKER = ("-I", "-m", "strongroom.hsm.worker")
"""Arguments of this interpreter. Isolated: neither the working directory nor PYTHON* variables choose what it runs."""

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_EXIT_SECONDS = 10.0
"""How long an orderly end may take (C_Finalize) before the process is killed."""


class WorkerLost(Exception):
    """The worker is gone; `cause` completes "the library's process …". `by_request`: it crashed or hung, and a request
    that was in flight, as this one was, may be why."""

    def __init__(self, cause: str, *, by_request: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.by_request = by_request


class WorkerProcess:
    """One worker. Belongs to one event loop; the thread that starts it must outlive it (the worker dies with that
    thread: PR_SET_PDEATHSIG)."""

    def __init__(self, process: Process, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        """Set once, with the cause."""
        self._loop = loop
        self._process = process
        self._connection = connection
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._outgoing: asyncio.Queue[bytearray] = asyncio.Queue()
        self._tasks = (
            loop.create_task(self._receive(), name="hsm-worker-receive"),
            loop.create_task(self._send(), name="hsm-worker-send"),
        )

    @classmethod
    async def spawn(cls, environment: Mapping[str, str]) -> "WorkerProcess":
        """Start one with this environment, PATH and LANG. Its standard output goes nowhere (ours is the audit log),
        its standard error to ours. Raises OSError if no process can be started."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *WORKER,
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=DEVNULL,
                stdout=DEVNULL,
                env={**_ENVIRONMENT, **environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt from the terminal is the operator's to handle
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def memory_bytes(self) -> int:
        """Resident memory; 0 if it is gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def ask(self, request: wire.Request, *, timeout: float) -> asyncio.Future[wire.Reply]:
        """Send a request. The future ends exactly once: with the answer, or with WorkerLost, at the latest after
        `timeout` seconds, when the worker counts as hung. It is not to be cancelled: the C call cannot be.

        Buffers of the request are the caller's again when this returns. Raises wire.ProtocolError if the request does
        not fit into a frame.
        """
        future: asyncio.Future[wire.Reply] = self._loop.create_future()
        if self.lost.done():
            future.set_exception(WorkerLost(self.lost.result()))
            return future
        request_id = next(self._ids) & 0xFFFFFFFF
        frame = wire.encode(request_id, request)
        watchdog = self._loop.call_later(timeout, self._hung, f"did not answer within {timeout:g} seconds")
        self._pending[request_id] = _Pending(future, watchdog)
        self._outgoing.put_nowait(frame)
        return future

    def kill(self, cause: str) -> None:
        """End it at once; harmless when repeated. Everything in flight fails with this cause."""
        self._end(WorkerLost(cause))

    def _hung(self, cause: str) -> None:
        self._end(WorkerLost(cause, by_request=True))

    def _ended(self) -> None:
        """It has closed its end, so it is ending: a signal now would take its exit status from asyncio. If it does not
        end, `close` sees to that."""
        self._end(WorkerLost("ended unexpectedly", by_request=True), kill=False)

    def _end(self, lost: WorkerLost, *, kill: bool = True) -> None:
        if self.lost.done():
            return
        self.lost.set_result(lost.cause)
        for task in self._tasks:
            task.cancel()
        if kill and self._process.returncode is None:
            self._process.kill()
        for pending in self._pending.values():
            pending.watchdog.cancel()
            pending.future.set_exception(WorkerLost(lost.cause, by_request=lost.by_request))
        self._pending.clear()

    async def close(self) -> None:
        """End it in good order (C_Finalize), with force after 10 s, and wait until it is gone. What is in flight fails.
        Needed after `kill` too, since it reaps the process; harmless when repeated."""
        self._connection_end()
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            self.kill("was stopped")
            await asyncio.gather(*self._tasks, return_exceptions=True)
            while not self._outgoing.empty():
                wire.wipe(self._outgoing.get_nowait())
            self._connection.close()

    def _connection_end(self) -> None:
        """Let the worker see the end of the file, which asks it to finish."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it is gone already

    async def _send(self) -> None:
        while True:
            frame = await self._outgoing.get()
            try:
                await self._loop.sock_sendall(self._connection, frame)
            except OSError:
                self._ended()
                return
            finally:
                wire.wipe(frame)

    async def _receive(self) -> None:
        try:
            while True:
                length, request_id = wire.parse_header(await self._read(wire.HEADER.size))
                body = await self._read(length)
                try:
                    reply = wire.decode_reply(body)
                finally:
                    wire.wipe(body)
                pending = self._pending.pop(request_id, None)
                if pending is None:
                    raise wire.ProtocolError("an answer to no question")
                pending.watchdog.cancel()
                pending.future.set_result(reply)
        except wire.ProtocolError:
            self.kill("sent what it must not")
        except (OSError, EOFError):
            self._ended()

    async def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        with memoryview(buffer) as view:
            done = 0
            while done < size:
                count = await self._loop.sock_recv_into(self._connection, view[done:])
                if count == 0:
                    raise EOFError
                done += count
        return buffer


class _Pending:
    """A request in flight."""

    __slots__ = ("future", "watchdog")

    def __init__(self, future: asyncio.Future[wire.Reply], watchdog: asyncio.TimerHandle) -> None:
        self.future = future
        self.watchdog = watchdog
