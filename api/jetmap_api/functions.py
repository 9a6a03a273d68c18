"""``GET /functions``, ``/functions/{name}`` and ``/workers``: what there is, and where it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from jetmap.errors import UnknownFunction

from .dependency import cluster_of

if TYPE_CHECKING:
    from jetmap.dispatch.roster import FunctionStatus
    from jetmap.wire.messages import Presence


async def list_functions(request: Request) -> Response:
    """Every function that is offered, as the newest version describes it."""
    return _json([describe(status) for status in cluster_of(request).functions])


async def get_function(request: Request) -> Response:
    """One function. 404 if nobody offers it."""
    name = request.path_params["name"]
    statuses = cluster_of(request).functions
    for status in statuses:
        if status.info.name == name:
            return _json(describe(status))
    known = ", ".join(status.info.name for status in statuses) or "none"
    raise UnknownFunction(f"no worker offers a function {name!r} now; offered: {known}")


async def list_workers(request: Request) -> Response:
    """Every agent and its cores."""
    return _json([_agent(presence) for presence in cluster_of(request).workers])


def describe(status: FunctionStatus) -> dict[str, Any]:
    """A function as ``GET /functions`` shows it."""
    info = status.info
    return {
        "name": info.name,
        "doc": info.doc,
        "item": info.item,
        "value": info.value,
        "kwargs": info.kwargs,
        "timeout": info.timeout,
        "attempts": info.attempts,
        "module": info.module,
        "alive": status.alive,
        "cores": status.cores,
        "agents": status.agents,
    }


def _agent(presence: Presence) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(presence)
    shown["functions"] = [info.name for info in presence.functions]
    return shown


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
