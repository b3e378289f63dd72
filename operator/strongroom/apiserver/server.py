# SPDX-License-Identifier: Apache-2.0
"""The listener: TLS, who may speak, one answer for each failure, and upkeep of certificates without a restart."""

import asyncio
import datetime
import logging
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from strongroom.apiserver import discovery, frontproxy, identity, status
from strongroom.apiserver.certificates import Leaf
from strongroom.apiserver.frontproxy import FrontProxy, FrontProxyUnusable
from strongroom.apiserver.identity import Unauthenticated
from strongroom.apiserver.listener import Listener
from strongroom.apiserver.resources import PRINCIPAL, Resources
from strongroom.apiserver.servingcert import ServingCertificates
from strongroom.apiserver.status import HttpRefusal
from strongroom.apiserver.tls import server_context
from strongroom.authz import Authorizer
from strongroom.config import ApiConfig
from strongroom.errors import Reason, StrongroomError
from strongroom.kms.keyreader import KeyReader
from strongroom.kms.service import CryptoService
from strongroom.kube.client import ApiError, KubeClient
from strongroom.model.limits import MAX_REQUEST_BYTES

_log = logging.getLogger(__name__)

UPKEEP_SECONDS: Final = 60.0
"""How often certificates, APIService and the front proxy's configuration are looked at."""
_UNREADY_UPKEEP_SECONDS: Final = 2.0
"""The same while something is still missing."""
_SHUTDOWN_SECONDS: Final = 20.0
"""How long requests under way may take to end at a stop: less than a pod's usual 30 s."""
_KEEPALIVE_SECONDS: Final = 100.0
"""Idle connections are closed later than kube-apiserver's client closes them (90 s), so that none is closed under a
request."""
_MAX_HEADERS: Final = 4096
"""Each of a user's groups is a header; directories know users with a thousand of them."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def utc_now() -> datetime.datetime:
    """The time, aware."""
    return datetime.datetime.now(datetime.UTC)


class ApiServer:
    """One replica's server. Belongs to one event loop.

    It listens only when both its certificate and the front proxy's configuration are known, so it serves nobody it
    could not identify: only holders of a certificate that the front proxy's CA signed get through the handshake.
    `on_request` is told verb and HTTP status of each request.
    """

    def __init__(
        self,
        config: ApiConfig,
        namespace: str,
        *,
        service: CryptoService,
        keys: KeyReader,
        authorizer: Authorizer,
        kube: KubeClient,
        on_request: Callable[[str, int], None],
        clock: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        self._config = config
        self._kube = kube
        self._on_request = on_request
        self._certificates = ServingCertificates(kube, namespace, config.service_name, clock=clock)
        self._resources = Resources(service=service, keys=keys, authorizer=authorizer, places=config.client_burst)
        self._leaf: Leaf | None = None
        self._proxy: FrontProxy | None = None
        self._served: tuple[Leaf, FrontProxy] | None = None
        self._complaint = ""
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None
        self._serving = asyncio.Event()
        self._upkeep_task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port, the real one even if 0 is configured. Known from `start` on."""
        assert self._listener is not None
        return self._listener.port

    async def start(self) -> None:
        """Take the port and return; connections are accepted as soon as certificates are there (`wait_until_serving`).

        An API server that is away only delays that. Raises OSError if the port cannot be had.
        """
        bound = _bound_socket(self._config.address, self._config.port)
        self._runner = web.AppRunner(
            self._application(),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_SECONDS,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._listener = Listener(bound, self._runner.server)
        self._upkeep_task = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        """Stop accepting, let requests under way end, close. Harmless if not started, and when repeated."""
        if self._upkeep_task is not None:
            self._upkeep_task.cancel()
            await asyncio.gather(self._upkeep_task, return_exceptions=True)
        if self._listener is not None:
            await self._listener.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait_until_serving(self) -> None:
        """Return when connections are accepted."""
        await self._serving.wait()

    async def upkeep(self) -> None:
        """One round, as happens every UPKEEP_SECONDS: what changed is in force for new connections when this returns.

        Whatever cannot be read now is logged, and what was read before stays in force.
        """
        complaints: list[str] = []
        try:
            self._leaf = await self._certificates.refresh()
        except ApiError as error:
            complaints.append(f"the CA of the serving certificate cannot be kept: {error}")
        try:
            self._proxy = await frontproxy.read(self._kube)
        except FrontProxyUnusable as error:
            complaints.append(str(error))
        except ApiError as error:
            complaints.append(f"the front proxy's configuration cannot be read: {error}")
        self._complain("; ".join(complaints))
        if self._leaf is not None and self._proxy is not None and self._served != (self._leaf, self._proxy):
            self._serve(self._leaf, self._proxy)

    async def _keep_up(self) -> None:
        while True:
            try:
                await self.upkeep()
            except Exception as error:
                _log.error("upkeep of the crypto API failed: %s", _where(error))
            await asyncio.sleep(UPKEEP_SECONDS if self._serving.is_set() else _UNREADY_UPKEEP_SECONDS)

    def _complain(self, complaint: str) -> None:
        """Log a state once, not each round."""
        if complaint and complaint != self._complaint:
            _log.error("the crypto API %s: %s", "goes on" if self._served else "does not listen yet", complaint)
        self._complaint = complaint

    def _serve(self, leaf: Leaf, proxy: FrontProxy) -> None:
        """Accept with this leaf and front proxy from now on.

        Connections from before get an answer to one more request each (`_conclude` closes them), if a CA in force
        signed their certificate (`_identify`).
        """
        assert self._listener is not None
        self._listener.serve(server_context(leaf, proxy.client_ca))
        self._served = (leaf, proxy)
        self._serving.set()
        _log.info(
            "the crypto API listens on port %d; its certificate ends %s",
            self.port,
            leaf.certificate.not_valid_after_utc.isoformat(timespec="seconds"),
        )

    def _application(self) -> web.Application:
        application = web.Application(
            client_max_size=MAX_REQUEST_BYTES,
            middlewares=[self._conclude, _answer_failures, self._identify],
        )
        application.add_routes(discovery.routes())
        application.add_routes(self._resources.routes())
        return application

    @web.middleware
    async def _conclude(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Count the request; close the connection after it if a newer certificate or CA is in force."""
        transport = request.transport
        response = await handler(request)
        if not self._is_current(transport):
            response.force_close()
        self._on_request(request.match_info.route.name or "other", response.status)
        return response

    @web.middleware
    async def _identify(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Nobody but the front proxy gets past this."""
        assert self._proxy is not None  # nothing listens before it is known
        identity.require_front_proxy(request.transport, self._proxy)
        if not self._is_current(request.transport):
            identity.require_authority_in_force(request.transport, self._proxy)
        request[PRINCIPAL] = identity.principal(request.headers, self._proxy)
        return await handler(request)

    def _is_current(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether the handshake of this connection was with certificate and CA that are in force now."""
        assert self._listener is not None
        return transport is not None and transport.get_extra_info("sslcontext") is self._listener.context


def _bound_socket(address: str, port: int) -> socket.socket:
    """A socket that has its port and does not listen: whoever connects is refused."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


@web.middleware
async def _answer_failures(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The one place where exceptions become answers."""
    key_name = request.match_info.get("name", "")
    try:
        return await handler(request)
    except StrongroomError as error:
        return status.of_error(error, key_name=key_name)
    except HttpRefusal as refusal:
        return status.of_refusal(refusal, key_name=key_name)
    except Unauthenticated:
        response = status.of_refusal(HttpRefusal(401, "only kube-apiserver may ask, for a user it has authenticated"))
        response.force_close()
        return response
    except web.HTTPRequestEntityTooLarge:
        return status.of_refusal(
            HttpRefusal(413, f"the body is larger than {MAX_REQUEST_BYTES} bytes"), key_name=key_name
        )
    except web.HTTPMethodNotAllowed as error:
        return status.of_refusal(
            HttpRefusal(405, "the resource does not know this method", allow=sorted(error.allowed_methods))
        )
    except web.HTTPNotFound:
        return status.of_refusal(HttpRefusal(404, "the server does not know this resource"))
    except Exception as error:
        _log.error("a request of the crypto API failed: %s", _where(error))
        return status.of_error(StrongroomError(Reason.INTERNAL, "the request failed"), key_name=key_name)


def _where(error: Exception) -> str:
    """Type and place of an unexpected exception; its text could hold a value."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {' < '.join(f'{frame.filename}:{frame.lineno}' for frame in reversed(frames))}"
