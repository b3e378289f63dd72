# SPDX-License-Identifier: Apache-2.0
"""Metrics and health over plain HTTP: numbers only. Readiness depends on no token, leader or key."""

from collections.abc import Callable

from aiohttp import web

from strongroom.metrics import Metrics


class OperationsServer:
    """Serves /metrics, /healthz and /readyz. `ready` says whether the first lists are in and the API is served."""

    def __init__(self, metrics: Metrics, *, ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._ready = ready
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/readyz", self._get_readiness)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, address: str, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _get_readiness(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="starting\n")
