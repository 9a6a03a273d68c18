"""The dashboard, ``/ui``: one page, a stream of changes in the pool, and actions.

The page's scripts and styles are assets. Without scripts, the page is tables of the same figures,
as they were when it was sent.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .asgi import Receive, Scope, Send
from .disconnect import DisconnectWatcher
from .documents import answer, done
from .job_follower import check_kept
from .media import CONTENT_TYPES
from .open_maps import ask_owner
from .pages import PAGE_HEADERS, Markup, page
from .problems import Problem
from .security import CALLER, CROSS_SITE, is_same_origin
from .streamed import write
from .streams import event
from .tables import tables
from .watched import serve_watched

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

# What may be done to an open map, to a function and to the pool, by the last part of the address.
ACTIONS = ("cancel", "pause", "resume", "limit")
OF_FUNCTIONS = ("pause", "resume", "limit")
OF_POOL = ("pause", "resume")
MOST_CORES = 1_000_000
# Seconds of one stream. The page opens the next one, for which it must still be logged in.
STREAM_SECONDS = 300.0
# Bytes of an action's body.
MOST_BODY = 1024

NOT_SHOWN = (
    "tracebacks are shown to those who have logged in with the gateway's token, or if the gateway "
    "was started with --debug"
)

_json = msgspec.json.Encoder().encode


class Limit(msgspec.Struct):
    """The body of ``limit``. cores: that a map or function may use at most; 0: no limit."""

    cores: int


_limit = msgspec.json.Decoder(Limit).decode


class Dashboard:
    """``/ui`` and all below it.

    Args:
        cluster: Finds the cluster of a request.
        guarded: Whether the gateway asks for a token.
        debug: Whether everybody sees tracebacks.
    """

    def __init__(self, cluster: Callable[[Scope], Cluster], *, guarded: bool, debug: bool) -> None:
        self._cluster = cluster
        self._guarded = guarded
        self._debug = debug

    def routes(self) -> list[BaseRoute]:
        def route(path: str, endpoint: Any, method: str = "GET") -> Route:
            return Route(path, endpoint, methods=[method], include_in_schema=False)

        return [
            route("/ui", self._page),
            route("/ui/session", self._session),
            Route(
                "/ui/events",
                DashboardEvents(self._cluster),
                methods=["GET"],
                include_in_schema=False,
            ),
            route("/ui/maps/{id}", self._map),
            route("/ui/failures/{key}", self._failure),
            route("/ui/jobs/{id}/failures", self._failures_of_job),
            route("/ui/maps/{id}/{action}", self._act, "POST"),
            route("/ui/functions/{function}/{action}", self._steer, "POST"),
            route("/ui/pool/{action}", self._steer, "POST"),
        ]

    async def _page(self, request: Request) -> Response:
        """Show the page; without scripts, its tables."""
        cluster = self._cluster(request.scope)
        watch = cluster.watch
        snapshot = (await watch.view()).snapshot() if watch.is_watching else None
        return page(
            "ui/ui.html",
            request.scope,
            headers=PAGE_HEADERS,
            tables=Markup(tables(snapshot, cluster.workers, cluster.functions)),
            logout=Markup("" if self._guarded else " hidden"),
            nats=cluster.where,
        )

    async def _session(self, request: Request) -> Response:
        """Answer whoever asks whether the login session goes on; others get a 401 before."""
        return done()

    async def _map(self, request: Request) -> Response:
        """Return where the time of one map goes."""
        found = await ask_owner(self._cluster(request.scope), "map", request.path_params["id"])
        return _answer(found.map)

    async def _failure(self, request: Request) -> Response:
        """Return the first traceback of a cause of failures, to whoever may see it."""
        if not self._may_see(request):
            return _answer({"traceback": None, "note": NOT_SHOWN})
        key = request.path_params["key"]
        found = (await ask_owner(self._cluster(request.scope), "failure", key)).failure
        assert found is not None
        return _answer(_traced(found.traceback))

    async def _failures_of_job(self, request: Request) -> Response:
        """Return the causes of a job's failures from the store, each with its first traceback."""
        jobs = self._cluster(request.scope).jobs
        record = await jobs.get(request.path_params["id"])
        check_kept(record)
        found = await jobs.causes(record)
        hidden = None if self._may_see(request) else {"traceback": None, "note": NOT_SHOWN}
        causes = [
            {"cause": cause.activity, **(hidden or _traced(cause.traceback))}
            for cause in found.causes
        ]
        return _answer({"causes": causes, "more": found.more})

    def _may_see(self, request: Request) -> bool:
        """Return whether tracebacks are shown to whoever asks."""
        return self._debug or CALLER in request.scope

    async def _act(self, request: Request) -> Response:
        """Do something to an open map, for a page of this gateway only."""
        action, id = _action(request, ACTIONS), request.path_params["id"]
        value = 0
        if action == "limit":
            value = await _cores(request)
        await ask_owner(self._cluster(request.scope), action, id, value)
        return done()

    async def _steer(self, request: Request) -> Response:
        """Pause, resume or limit a function, or the pool, for a page of this gateway only."""
        function = request.path_params.get("function")
        action = _action(request, OF_POOL if function is None else OF_FUNCTIONS)
        cluster = self._cluster(request.scope)
        if action == "limit":
            await cluster.steer(function, max_parallel=await _cores(request) or None)
        else:
            await cluster.steer(function, paused=action == "pause")
        return done()


class DashboardEvents:
    """``GET /ui/events``: a snapshot of the pool, and its differences once a second."""

    def __init__(self, cluster: Callable[[Scope], Cluster]) -> None:
        self._cluster = cluster

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def serve(send: Send, watcher: DisconnectWatcher) -> None:
            changes = self._cluster(scope).watch.changes()
            watcher.watch(receive)
            until = time.monotonic() + STREAM_SECONDS
            await write(send, CONTENT_TYPES["sse"], framed(changes, until))

        await serve_watched(serve, send, debug=False)


async def framed(
    changes: AsyncGenerator[bytes, None], until: float = math.inf
) -> AsyncGenerator[bytes, None]:
    """Turn whole views and differences into events, until this time of the monotonic clock."""
    async with contextlib.aclosing(changes):
        async for data in changes:
            yield event("snapshot" if data.endswith(_WHOLE) else "change", data)
            if time.monotonic() >= until:
                return


# The end of a whole view, which a difference never has.
_WHOLE = b'"whole":true}'


def _action(request: Request, known: tuple[str, ...]) -> str:
    """Return what a page of this gateway asks for. Raises Problem."""
    if not is_same_origin(request.scope):
        raise CROSS_SITE
    action: str = request.path_params["action"]
    if action not in known:
        raise Problem(404, "not-found", "No such action", f"one of {', '.join(known)}")
    return action


async def _cores(request: Request) -> int:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise Problem(413, "limit-exceeded", "Over a limit", f"at most {MOST_BODY} bytes")
    try:
        cores = _limit(body).cores
    except msgspec.DecodeError as error:
        detail = f'send {{"cores": 4}}, or 0 for no limit of its own: {error}'
        raise Problem(400, "malformed-body", "The body is malformed", detail) from None
    if not 0 <= cores <= MOST_CORES:
        detail = f"cores is from 0, which is no limit of its own, to {MOST_CORES:,}"
        raise Problem(400, "bad-parameter", "A parameter is wrong", detail)
    return cores


def _traced(traceback: str | None) -> dict[str, str | None]:
    note = "" if traceback else "this kind of failure has no traceback"
    return {"traceback": traceback, "note": note}


def _answer(value: object) -> Response:
    return answer(_json(msgspec.to_builtins(_named(value), str_keys=True)))


def _named(value: object) -> object:
    """Turn messages, which travel as arrays, into documents with names."""
    if isinstance(value, msgspec.Struct):
        return {name: _named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [_named(element) for element in value]
    if isinstance(value, dict):
        return {name: _named(element) for name, element in value.items()}
    return value
