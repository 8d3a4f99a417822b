"""The HTTP endpoint of a pod: `/metrics`, `/healthz` (live) and `/readyz`."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lethe.controllers.runtime.metrics import Metrics

STALE_SECONDS = 60.0
"""A loop that has not turned for this long hangs: the pod is started anew."""


async def serve_probes(
    metrics: Metrics,
    *,
    host: str,
    port: int,
    heartbeat_age: Callable[[], float],
    ready: Callable[[], bool],
    standing_by: Callable[[], bool],
) -> web.AppRunner:
    """Serve until the returned runner is cleaned up. Raises `OSError` where the address is taken.

    Who stands by is ready, too: a rolling update ends the leader only when another pod is.
    """

    async def metrics_page(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def live(_: web.Request) -> web.Response:
        age = heartbeat_age()
        return web.Response(text=f"last turn {age:.1f} s ago\n", status=200 if age < STALE_SECONDS else 503)

    async def is_ready(_: web.Request) -> web.Response:
        text = "ready" if ready() else "standing by" if standing_by() else "starting"
        return web.Response(text=f"{text}\n", status=503 if text == "starting" else 200)

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics_page), web.get("/healthz", live), web.get("/readyz", is_ready)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
