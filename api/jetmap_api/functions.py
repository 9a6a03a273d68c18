"""``GET /functions``, ``/functions/{name}`` and ``/workers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response

from jetmap.errors import UnknownFunction
from jetmap.wire.controls import FREE, FunctionControl

from .dependency import cluster_of
from .models import Agent, Function
from .openapi_parts import NOT_CONNECTED, refusal_response

if TYPE_CHECKING:
    from jetmap.dispatch.roster import FunctionStatus
    from jetmap.wire.presence import Presence


router = APIRouter()

# Fields of an announcement that others stand for, or that only mean something to its reader.
WIRE_ONLY = ("listed", "counted", "running", "cells", "details", "digest", "now")


@router.get(
    "/functions",
    tags=["functions"],
    operation_id="list_functions",
    summary="List the functions, as their newest version describes them",
    response_model=list[Function],
    response_description="Every function.",
    responses=NOT_CONNECTED,
)
async def list_functions(request: Request) -> Response:
    cluster = cluster_of(request)
    return _json([describe(s, cluster.control.of(s.info.name)) for s in cluster.functions])


@router.get(
    "/functions/{name}",
    tags=["functions"],
    operation_id="get_function",
    summary="Get one function",
    response_model=Function,
    response_description="The function.",
    responses={404: refusal_response("No worker offers it now."), **NOT_CONNECTED},
)
async def get_function(name: str, request: Request) -> Response:
    cluster = cluster_of(request)
    statuses = cluster.functions
    for status in statuses:
        if status.info.name == name:
            return _json(describe(status, cluster.control.of(name)))
    known = ", ".join(status.info.name for status in statuses) or "none"
    raise UnknownFunction(f"no worker offers a function {name!r} now; offered: {known}")


@router.get(
    "/workers",
    tags=["workers"],
    operation_id="list_workers",
    summary="List the agents and their cores",
    response_model=list[Agent],
    response_description="Every agent.",
    responses=NOT_CONNECTED,
)
async def list_workers(request: Request) -> Response:
    return _json([_agent(presence) for presence in cluster_of(request).workers])


def describe(status: FunctionStatus, control: FunctionControl = FREE) -> dict[str, Any]:
    """Make a function's document."""
    info = status.info
    return {
        "name": info.name,
        "doc": info.doc,
        "item": info.item,
        "value": info.value,
        "kwargs": info.kwargs,
        "timeout": info.timeout,
        "attempts": info.attempts,
        "retries": info.retries,
        "batch": info.batch or None,
        "linger": info.linger if info.batch else None,
        "refusal": info.refusal or None,
        "module": info.module,
        "alive": status.alive,
        "cores": status.cores,
        "agents": status.agents,
        "paused": control.paused,
        "max_parallel": control.max_parallel or info.max_parallel,
        "max_parallel_in_code": info.max_parallel,
    }


def _agent(presence: Presence) -> dict[str, Any]:
    shown = {name: getattr(presence, name) for name in presence.__struct_fields__}
    for name in WIRE_ONLY:
        del shown[name]
    shown["functions"] = [info.name for info in presence.functions]
    shown["workers"], shown["items"] = presence.workers, presence.items
    return shown


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
