"""Serve a worker's metrics, liveness and readiness over HTTP, on the loop that the stages run on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from config.monitoring import metrics_page, port_refused, readiness
from config.settings import SettingsError

LOG = logging.getLogger(__name__)


async def serve(host: str, port: int, registry: CollectorRegistry, problem: Callable[[], str | None]) -> web.AppRunner:
    """Serve `/metrics`, `/healthz` and `/readyz` until `cleanup()` of what is returned.

    `problem` says why the worker is not ready, None when it is. `/healthz` answers as long as the loop turns. Raises
    `SettingsError` when the port is taken.
    """

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = metrics_page(registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        status, body = readiness(problem())
        return web.Response(status=status, body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as why:
        await runner.cleanup()
        raise SettingsError(port_refused(host, port, why)) from None
    LOG.info("Metrics, /healthz and /readyz are on http://%s:%d.", host, port)
    return runner
