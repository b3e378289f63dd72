# SPDX-License-Identifier: Apache-2.0
"""A proxy between a client and the API server that causes, on demand, the faults that real networks and servers cause.

It ends TLS with a certificate of the cluster's CA and passes everything on over a verified TLS connection. So a client
that authenticates with a bearer token (a ServiceAccount) passes; one with a client certificate is anonymous behind it.
"""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import yarl
from aiohttp import web

from testbed.controlplane import ControlPlane
from testbed.processes import free_port

_T = TypeVar("_T")

# How long connections to the API server may take to close: nobody can be asked when they have (aiohttp's documentation,
# "Graceful Shutdown").
_TLS_CLOSE_SECONDS = 1.0

# Of one connection, so not passed on (RFC 9110, section 7.6.1); aiohttp sets its own.
_HOP_BY_HOP = frozenset({"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it arrived, answered or not."""

    method: str
    path: str
    """Without the query."""
    query: dict[str, str]
    content_type: str
    accept: str

    @property
    def watch(self) -> bool:
        """Whether this is a watch."""
        return self.query.get("watch") in {"true", "1", "True"}


@dataclass(frozen=True, slots=True)
class _Answer:
    path: str
    status: int
    body: bytes
    headers: dict[str, str]
    method: str | None


@dataclass(slots=True, eq=False)
class _OpenWatch:
    path: str
    response: web.StreamResponse
    transport: asyncio.Transport
    lines: int = field(default=0)


class FaultProxy:
    """Start with `start()` or as a context manager; give `url` to the client as its server.

    Faults stay until `clear()`. `path` means: every request whose path contains it. All methods may be called from any
    thread but the proxy's own.
    """

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self._port = free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.requests: list[RecordedRequest] = []
        """Everything that arrived, oldest first; `clear_requests()` empties it."""
        self._list_delay = 0.0
        self._answers: list[_Answer] = []
        self._cut_after: int | None = None
        self._watches: set[_OpenWatch] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._upstream: aiohttp.ClientSession

    def __enter__(self) -> "FaultProxy":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; returns when connections are accepted."""
        self._thread.start()
        self._run(self._serve())

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def delay_lists(self, seconds: float) -> None:
        """Answer every LIST this much later. A GET of a single object or of discovery is not delayed."""
        self._list_delay = seconds

    def answer(
        self,
        path: str,
        status: int,
        *,
        method: str | None = None,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer instead of the API server; `body` is a Kubernetes Status unless given. The newest answer wins."""
        content = body or {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status,
            "message": "fault",
        }
        self._answers.insert(0, _Answer(path, status, json.dumps(content).encode(), headers or {}, method))

    def cut_watches(self, path: str = "") -> int:
        """Cut every open watch now, in the middle of a line; returns how many there were."""
        return self._run(self._cut_open(path))

    def cut_watches_after(self, lines: int) -> None:
        """Cut every watch from now on in the middle of its line number `lines + 1`."""
        self._cut_after = lines

    def inject_watch_error(self, code: int = 500, path: str = "") -> int:
        """Write an ERROR event into every open watch, and leave it open; returns how many there were."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "injected"}
        return self._run(self._write_to_watches(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n", path))

    def open_watches(self, path: str = "") -> int:
        """How many watches are under way."""
        return sum(path in watch.path for watch in list(self._watches))

    def clear(self) -> None:
        """Be a faithful proxy again. What was recorded stays."""
        self._list_delay = 0.0
        self._answers = []
        self._cut_after = None

    def clear_requests(self) -> None:
        """Forget what was recorded."""
        self.requests = []

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        future: Future[_T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout=30)

    async def _serve(self) -> None:
        self._stack.push_async_callback(asyncio.sleep, _TLS_CLOSE_SECONDS)
        upstream_tls = ssl.create_default_context(cafile=str(self._control_plane.ca.certificate))
        self._upstream = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=upstream_tls, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        )
        files = self._control_plane.ca.issue_server(f"fault-proxy-{self._port}", "127.0.0.1")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(files.certificate, files.key)
        # A client that goes away ends what was done for it, as at the API server.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.push_async_callback(_abort_connections, server)
        await web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=tls).start()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        recorded = RecordedRequest(
            request.method,
            request.path,
            dict(request.query),
            request.headers.get("Content-Type", ""),
            request.headers.get("Accept", ""),
        )
        self.requests.append(recorded)
        for answer in self._answers:
            if answer.path in recorded.path and answer.method in {None, recorded.method}:
                return web.Response(
                    status=answer.status, body=answer.body, content_type="application/json", headers=answer.headers
                )
        if self._list_delay and _is_list(recorded):
            await asyncio.sleep(self._list_delay)
        try:
            async with self._upstream.request(
                request.method,
                yarl.URL(self._control_plane.url + request.raw_path, encoded=True),
                headers={name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP},
                data=await request.read() or None,
                allow_redirects=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            ) as upstream:
                if recorded.watch and upstream.status == 200:
                    return await self._relay_watch(request, upstream)
                return web.Response(
                    status=upstream.status, body=await upstream.read(), headers=_end_to_end_headers(upstream)
                )
        except aiohttp.ClientError:
            # As without a proxy: the connection breaks, no answer of somebody else's appears.
            return _broken(request)

    async def _relay_watch(self, request: web.BaseRequest, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, headers=_end_to_end_headers(upstream))
        await response.prepare(request)
        assert request.transport is not None
        watch = _OpenWatch(request.path, response, request.transport)
        self._watches.add(watch)
        try:
            pending = b""
            async for chunk in upstream.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    if self._cut_after is not None and watch.lines >= self._cut_after:
                        await _cut(watch, line)
                        return response
                    # One write a line: an injected event always falls between two.
                    await response.write(line + b"\n")
                    watch.lines += 1
            await response.write_eof()
        except (aiohttp.ClientError, ConnectionError):
            watch.transport.abort()
        finally:
            self._watches.discard(watch)
        return response

    async def _cut_open(self, path: str) -> int:
        watches = [watch for watch in self._watches if path in watch.path]
        for watch in watches:
            await _cut(watch, b'{"type":"MODIFIED","object":{"kind":"')
        return len(watches)

    async def _write_to_watches(self, line: bytes, path: str) -> int:
        watches = [watch for watch in self._watches if path in watch.path]
        for watch in watches:
            await watch.response.write(line)
        return len(watches)


async def _abort_connections(server: web.Server) -> None:
    """Close every connection: closing in order would wait for the client."""
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()
    # The loop closes the sockets of aborted connections in its next round, and is stopped soon after.
    await asyncio.sleep(0)


async def _cut(watch: _OpenWatch, line: bytes) -> None:
    """Send half of the line, and end the connection without the end that HTTP prescribes."""
    with contextlib.suppress(ConnectionError):
        await watch.response.write(line[: len(line) // 2])
    watch.transport.abort()


def _broken(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _end_to_end_headers(upstream: aiohttp.ClientResponse) -> dict[str, str]:
    dropped = _HOP_BY_HOP | {"content-length"}
    return {name: value for name, value in upstream.headers.items() if name.lower() not in dropped}


def _is_list(request: RecordedRequest) -> bool:
    """`/api/v1[/namespaces/N]/RESOURCE` or the same below `/apis/GROUP/VERSION`, with GET and without watch."""
    if request.method != "GET" or request.watch:
        return False
    parts = request.path.strip("/").split("/")
    if parts[0] == "api":
        rest = parts[2:]
    elif parts[0] == "apis":
        rest = parts[3:]
    else:
        return False
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return len(rest) == 1
