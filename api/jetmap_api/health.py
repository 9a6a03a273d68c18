"""``GET /healthz``, ``/readyz`` and ``/scale``: for probes and scalers."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from jetmap.monitoring.scaling import scale_of

from .dependency import cluster_of, find_cluster
from .models import Health, Scale
from .openapi_parts import NOT_CONNECTED, RETRY_AFTER

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="healthz",
    summary="Check that the process answers",
    response_model=Health,
    response_description="The process answers.",
)
async def healthz() -> Response:
    return _answer(200, Health(status="ok"))


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Check that a map would run",
    response_model=Health,
    response_description="The broker answers, and a worker is ready.",
    responses={
        503: {
            "model": Health,
            "description": "`missing` names what is not there.",
            "headers": RETRY_AFTER,
        }
    },
)
async def readyz(request: Request) -> Response:
    cluster = find_cluster(request.scope)
    if cluster is None:
        return _answer(503, Health(status="starting", missing="cluster"))
    if not cluster.connected:
        return _answer(503, Health(status="unavailable", missing="broker"))
    ready = any(presence.ready and not presence.draining for presence in cluster.workers)
    if not ready and not any(status.alive for status in cluster.functions):
        return _answer(503, Health(status="unavailable", missing="workers"))
    return _answer(200, Health(status="ok"))


@router.get(
    "/scale",
    operation_id="scale",
    summary="Get how much waits in the pool, and how many cores are wanted",
    response_model=Scale,
    response_description="The load. Every gateway of a pool answers the same.",
    responses=NOT_CONNECTED,
)
async def scale(request: Request) -> Response:
    cluster = cluster_of(request)
    view = await cluster.watch.view()
    found = scale_of(view, request.app.state.scale_seconds)
    return _answer(200, Scale(**asdict(found)))


def _answer(status: int, document: Health | Scale) -> Response:
    headers = {"cache-control": "no-store"}
    if status == 503:
        headers["retry-after"] = "1"
    body = document.model_dump_json(exclude_none=True)
    return Response(body, status, headers=headers, media_type="application/json")
