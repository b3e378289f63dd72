# SPDX-License-Identifier: Apache-2.0
"""Metrics and health over plain HTTP: numbers only. Readiness depends on no token, leader or key."""

from collections.abc import Callable

from aiohttp import web

from strongroom.metrics import Metrics


class OperationsServer:
    """Serves /metrics, /healthz and /readyz. Healthy and not ready until `ask` is called."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._healthy: Callable[[], bool] = lambda: True
        self._ready: Callable[[], bool] = lambda: False
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/readyz", self._get_readiness)
        self._runner = web.AppRunner(app, access_log=None)

    def ask(self, *, healthy: Callable[[], bool], ready: Callable[[], bool]) -> None:
        """From now on these answer: `healthy` whether no restart is needed, `ready` whether all is served."""
        self._healthy = healthy
        self._ready = ready

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
        return (
            web.Response(text="ok\n") if self._healthy() else web.Response(status=503, text="the watches have ended\n")
        )

    async def _get_readiness(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="starting\n")
