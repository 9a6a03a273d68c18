"""``/maps``: the open maps of the pool, whoever runs them, and what may be done to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from jetmap.client.cluster import Cluster
from jetmap.wire.activity import ActivityAnswer

from .dependency import cluster_of
from .documents import answer, done
from .models import LimitParameters, MapsParameters, NoParameters, PoolMap
from .openapi_parts import NOT_CONNECTED, refusal_response
from .problems import Problem
from .request import read_labels

router = APIRouter()

GONE: dict[int | str, dict[str, Any]] = {
    409: refusal_response(
        "It is not open any more, or it is a job, which has addresses of its own."
    ),
    **NOT_CONNECTED,
}


@router.get(
    "/maps",
    tags=["map"],
    operation_id="list_maps",
    summary="List the open maps and jobs of the pool, as those who run them announce",
    response_model=list[PoolMap],
    response_description="Every one that has these labels and this function.",
    responses=NOT_CONNECTED,
)
async def list_maps(request: Request, query: Annotated[MapsParameters, Query()]) -> Response:
    labels = read_labels(query.labels or "")
    view = await cluster_of(request).watch.view()
    found = [
        {name: row[name] for name in PoolMap.model_fields}
        for row in view.snapshot()["maps"].values()
        if row["ended"] is None
        and labels.items() <= row["labels"].items()
        and query.function in (None, "", row["function"])
    ]
    return answer(msgspec.json.encode(found))


def _steering(what: str, summary: str, done: str) -> Callable[..., Any]:
    """Return a decorator for the endpoint that does this to a map."""
    return router.post(
        f"/maps/{{id}}/{what}",
        tags=["map"],
        operation_id=f"{what}_map",
        summary=summary,
        status_code=204,
        response_class=Response,
        response_description=done,
        responses=GONE,
    )


@_steering("cancel", "End an open map; its caller gets `map-cancelled`", "It is cancelled.")
async def cancel_map(
    id: str, request: Request, query: Annotated[NoParameters, Query()]
) -> Response:
    return await _steer(request, "cancel", id)


@_steering(
    "pause",
    "Send nothing more of an open map until it is resumed; its timeout goes on",
    "It is paused.",
)
async def pause_map(id: str, request: Request, query: Annotated[NoParameters, Query()]) -> Response:
    return await _steer(request, "pause", id)


@_steering("resume", "Let a paused map go on", "It goes on.")
async def resume_map(
    id: str, request: Request, query: Annotated[NoParameters, Query()]
) -> Response:
    return await _steer(request, "resume", id)


@_steering("limit", "Limit the cores of an open map", "It has this limit.")
async def limit_map(
    id: str, request: Request, query: Annotated[LimitParameters, Query()]
) -> Response:
    return await _steer(request, "limit", id, query.max_parallel or 0)


async def _steer(request: Request, what: str, id: str, value: int = 0) -> Response:
    await ask_owner(cluster_of(request), what, id, value)
    return done()


async def ask_owner(cluster: Cluster, what: str, id: str, value: int = 0) -> ActivityAnswer:
    """Ask the process that runs a map. Raises Problem: 409, with its reason."""
    answered = await cluster.watch.ask(what, id, value)
    if answered.refusal:
        raise Problem(409, "map-gone", "It cannot be done", answered.refusal)
    return answered
