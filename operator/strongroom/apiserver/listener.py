# SPDX-License-Identifier: Apache-2.0
"""Accepts TLS connections, within limits that hold before anybody is known: nothing parses what a stranger sends."""

import asyncio
import logging
import socket
import ssl
from typing import Final

from aiohttp import web

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 5.0
"""How long a client may take to show its certificate."""
MAX_HANDSHAKES: Final = 64
"""How many may be under way. One more ends the oldest: who is quick gets through, however many strangers hold on."""
MAX_CONNECTIONS: Final = 512
"""How many connections may be open after their handshake, at 256 KiB of TLS buffers each. An API server keeps some 30
idle ones, and opens one more for each request under way."""
_BACKLOG: Final = 128
_ACCEPT_RETRY_SECONDS: Final = 1.0


class Listener:
    """Hands connections to `server`, each once its handshake is complete. Belongs to one event loop.

    Takes over `bound`, a socket that has its port; until `serve` it does not listen, so whoever connects is refused.
    """

    def __init__(self, bound: socket.socket, server: web.Server) -> None:
        bound.setblocking(False)
        self._socket = bound
        self._server = server
        self._context: ssl.SSLContext | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: dict[asyncio.Task[None], None] = {}
        """Those under way, oldest first."""

    @property
    def port(self) -> int:
        """The port."""
        return int(self._socket.getsockname()[1])

    @property
    def context(self) -> ssl.SSLContext | None:
        """What new connections are accepted with; None as long as none are."""
        return self._context

    def serve(self, context: ssl.SSLContext) -> None:
        """Accept connections with `context` from now on; those accepted before keep theirs."""
        self._context = context
        if self._accepting is None:
            self._socket.listen(_BACKLOG)
            self._accepting = asyncio.create_task(self._accept(), name="accept")

    async def stop(self) -> None:
        """Refuse new connections and end the handshakes under way; open connections stay. Harmless when repeated."""
        tasks = [*self._handshakes, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except ConnectionError:  # this client has gone already
                continue
            except OSError as error:  # most likely no descriptors are left
                _log.error("the crypto API cannot accept connections: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            if len(self._handshakes) >= MAX_HANDSHAKES:
                oldest = next(iter(self._handshakes))
                self._forget(oldest)
                oldest.cancel()
            task = asyncio.create_task(self._shake_hands(connection))
            self._handshakes[task] = None
            task.add_done_callback(self._forget)

    def _forget(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.pop(handshake, None)

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:  # ssl.SSLError and a timeout are such, too
            _log.debug("a connection ended in its TLS handshake: %s", type(error).__name__)
            return
        if len(self._server.connections) > MAX_CONNECTIONS:
            transport.abort()
