"""``GET /healthz``: the process answers. ``GET /readyz``: so would a map."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from .dependency import find_cluster


async def healthz(request: Request) -> Response:
    """Always 200."""
    return _answer(200, {"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 if the broker answers and a worker is ready, else 503 with what is missing."""
    cluster = find_cluster(request.scope)
    if cluster is None:
        return _answer(503, {"status": "starting", "missing": "cluster"})
    if not cluster.connected:
        return _answer(503, {"status": "unavailable", "missing": "broker"})
    ready = any(presence.ready and not presence.draining for presence in cluster.workers)
    if not ready and not any(status.alive for status in cluster.functions):
        return _answer(503, {"status": "unavailable", "missing": "workers"})
    return _answer(200, {"status": "ok"})


def _answer(status: int, document: dict[str, object]) -> Response:
    headers = {"cache-control": "no-store"}
    if status == 503:
        headers["retry-after"] = "1"
    body = msgspec.json.encode(document)
    return Response(body, status, headers=headers, media_type="application/json")
