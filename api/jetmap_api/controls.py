"""``/functions/{name}/pause`` and the like, and ``/pool``: what people want of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from jetmap.wire.controls import FunctionControl, PoolControl

from .dependency import cluster_of
from .documents import answer
from .models import LimitParameters, NoParameters, SteeredFunction, SteeredPool
from .openapi_parts import NOT_CONNECTED, refusal_response

router = APIRouter()

UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: refusal_response("No worker ever announced this function."),
    **NOT_CONNECTED,
}


def _of_function(what: str, summary: str) -> Callable[..., Any]:
    """Return a decorator for the endpoint that does this to a function."""
    return router.post(
        f"/functions/{{name}}/{what}",
        tags=["functions"],
        operation_id=f"{what}_function",
        summary=summary,
        response_model=SteeredFunction,
        response_description="What holds for it now, also if it did before.",
        responses=UNKNOWN,
    )


@_of_function(
    "pause",
    "Send nothing more of a function until it is resumed; its maps wait until their timeout",
)
async def pause_function(
    name: str, request: Request, query: Annotated[NoParameters, Query()]
) -> Response:
    return _function(name, request, await cluster_of(request).steer(name, paused=True))


@_of_function("resume", "Let a paused function go on")
async def resume_function(
    name: str, request: Request, query: Annotated[NoParameters, Query()]
) -> Response:
    return _function(name, request, await cluster_of(request).steer(name, paused=False))


@_of_function("limit", "Limit the cores of a function, over the whole pool, also while it runs")
async def limit_function(
    name: str, request: Request, query: Annotated[LimitParameters, Query()]
) -> Response:
    control = await cluster_of(request).steer(name, max_parallel=query.max_parallel or None)
    return _function(name, request, control)


@router.get(
    "/pool",
    tags=["pool"],
    operation_id="get_pool",
    summary="Show whether the pool is paused, and which functions are paused or limited",
    response_model=SteeredPool,
    response_description="What holds now.",
    responses=NOT_CONNECTED,
)
async def get_pool(request: Request, query: Annotated[NoParameters, Query()]) -> Response:
    return _pool(request, cluster_of(request).control)


def _of_pool(what: str, summary: str) -> Callable[..., Any]:
    """Return a decorator for the endpoint that does this to the pool."""
    return router.post(
        f"/pool/{what}",
        tags=["pool"],
        operation_id=f"{what}_pool",
        summary=summary,
        response_model=SteeredPool,
        response_description="What holds now, also if it did before.",
        responses=NOT_CONNECTED,
    )


@_of_pool("pause", "Send nothing more of any function until the pool is resumed")
async def pause_pool(request: Request, query: Annotated[NoParameters, Query()]) -> Response:
    return _pool(request, await cluster_of(request).steer(None, paused=True))


@_of_pool("resume", "Let a paused pool go on; functions that are paused themselves stay so")
async def resume_pool(request: Request, query: Annotated[NoParameters, Query()]) -> Response:
    return _pool(request, await cluster_of(request).steer(None, paused=False))


def _function(name: str, request: Request, control: PoolControl) -> Response:
    return answer(msgspec.json.encode(_described(name, request, control.of(name))))


def _pool(request: Request, control: PoolControl) -> Response:
    in_code = {
        status.info.name
        for status in cluster_of(request).functions
        if status.info.max_parallel is not None
    }
    names = sorted({*control.functions, *in_code})
    functions = [_described(name, request, control.of(name)) for name in names]
    pool = cluster_of(request).settings.broker.pool
    document = {"pool": pool, "paused": control.paused, "functions": functions}
    return answer(msgspec.json.encode(document))


def _described(name: str, request: Request, control: FunctionControl) -> dict[str, Any]:
    found = (s.info for s in cluster_of(request).functions if s.info.name == name)
    in_code = next((info.max_parallel for info in found), None)
    return {
        "name": name,
        "paused": control.paused,
        "max_parallel": control.max_parallel or in_code,
        "max_parallel_in_code": in_code,
    }
