# SPDX-License-Identifier: Apache-2.0
"""The worker process: `python -I -m strongroom.hsm.worker <descriptor> <parent's pid>`.

One token lives here and nothing else: no Kubernetes credentials, no environment but the library's own. It speaks over
the socket it was given (`wire`), reads requests in its main thread, serves values on one thread per session and
everything else on a thread for the anchor session, and ends with its parent, at end of file, or at the first thing it
does not understand.
"""

import contextlib
import faulthandler
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, TypeVar

from strongroom.hsm import wire
from strongroom.hsm.canary import Canaries
from strongroom.hsm.cryptoki import CkrError, CryptokiSession
from strongroom.hsm.hardening import die_with_parent, harden_process
from strongroom.hsm.module import OpenToken, find_token
from strongroom.hsm.outcome import Outcome
from strongroom.hsm.session import TokenSession

_DRAIN_SECONDS = 5.0
"""How long requests in progress may take to end before C_Finalize; after that the process ends without it."""

_Request = TypeVar("_Request", wire.Start, wire.LogIn, wire.OpenSessions)
_Result = TypeVar("_Result")
_Jobs = queue.SimpleQueue[tuple[int, wire.Request] | None]


class Channel:
    """The worker's end of the socket. One thread reads, any thread sends. Wipes what it has read and sent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def receive(self) -> tuple[int, wire.Request] | None:
        """The next request; None at end of file. Raises ProtocolError."""
        header = self._read(wire.HEADER.size)
        if header is None:
            return None
        length, request_id = wire.parse_header(header)
        body = self._read(length)
        if body is None:
            return None
        try:
            return request_id, wire.decode_request(body)
        finally:
            wire.wipe(body)

    def send(self, request_id: int, reply: wire.Reply) -> None:
        """Send one answer; one that is too large becomes a refusal."""
        try:
            frame = wire.encode(request_id, reply)
        except wire.ProtocolError:
            frame = wire.encode(request_id, wire.Failed(wire.Failure.REFUSED))
        if isinstance(reply, wire.OpenedValues):
            reply.wipe()
        try:
            with self._sending:
                self._connection.sendall(frame)
        except OSError:
            os._exit(0)  # the operator has left
        finally:
            wire.wipe(frame)

    def _read(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        with memoryview(buffer) as view:
            done = 0
            while done < size:
                try:
                    count = self._connection.recv_into(view[done:])
                except ConnectionError:
                    count = 0  # the operator was killed
                if count == 0:
                    return None
                done += count
        return buffer


def serve(channel: Channel) -> None:
    """The whole life: start, login, sessions, requests, C_Finalize. Raises ProtocolError."""
    found = _answer(channel, wire.Start, find_token)
    if found is None:
        return
    token = _answer(channel, wire.LogIn, lambda request: found.log_in(request.pin))
    sessions = token and _answer(channel, wire.OpenSessions, lambda request: token.open_sessions(request.sessions))
    threads = _serve_sessions(channel, token, sessions) if token and sessions else []
    if not any(thread.is_alive() for thread in threads):  # nobody may be inside the library
        with contextlib.suppress(CkrError):
            found.close()


def _serve_sessions(channel: Channel, token: OpenToken, sessions: list[CryptokiSession]) -> list[threading.Thread]:
    """Until the end of the file; the threads, which have ended unless the library keeps them."""
    canaries = Canaries()
    values: _Jobs = queue.SimpleQueue()
    management: _Jobs = queue.SimpleQueue()
    work = [(management, token.anchor), *((values, session) for session in sessions)]
    threads = [
        threading.Thread(target=_work, args=(TokenSession(token, session, canaries), jobs, channel), daemon=True)
        for jobs, session in work
    ]
    for thread in threads:
        thread.start()
    while (job := channel.receive()) is not None:
        (values if isinstance(job[1], wire.Seal | wire.Open) else management).put(job)
    for jobs, _ in work:
        jobs.put(None)
    deadline = time.monotonic() + _DRAIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return threads


def _answer(channel: Channel, kind: type[_Request], act: Callable[[_Request], _Result]) -> _Result | None:
    """Receive the request that is due, act on it, answer. None: it failed, or the operator has left."""
    received = channel.receive()
    if received is None:
        return None
    request_id, request = received
    if not isinstance(request, kind):
        raise wire.ProtocolError("not the request that is due")
    try:
        result = act(request)
    except Outcome as outcome:
        channel.send(request_id, outcome.failed)
        return None
    channel.send(request_id, wire.SessionsOpened(len(result)) if isinstance(result, list) else wire.Done())
    return result


def _work(session: TokenSession, jobs: _Jobs, channel: Channel) -> None:
    while (job := jobs.get()) is not None:
        request_id, request = job
        channel.send(request_id, session.serve(request))


def _report_and_exit(kind: type[BaseException] | None, where: TracebackType | None) -> NoReturn:
    """A fault of ours, in any thread: say what and where, never the message (it could quote data), and end."""
    frames = "".join(traceback.format_tb(where))
    sys.stderr.write(f"HSM worker: {kind.__name__ if kind else 'unknown fault'} at\n{frames}")
    sys.stderr.flush()
    os._exit(1)


def main() -> NoReturn:
    """Entry point of the process. Ends by `_exit`: SoftHSM crashes in its destructors at an ordinary exit."""
    sys.excepthook = lambda kind, _, where: _report_and_exit(kind, where)
    threading.excepthook = lambda fault: _report_and_exit(fault.exc_type, fault.exc_traceback)
    faulthandler.enable()  # where a vendor's library crashed; shows code positions alone
    descriptor, parent = map(int, sys.argv[1:])
    harden_process()
    die_with_parent(parent)
    channel = Channel(socket.socket(fileno=descriptor))  # open until the very end: its end of file is a crash
    serve(channel)
    os._exit(0)


if __name__ == "__main__":
    main()
