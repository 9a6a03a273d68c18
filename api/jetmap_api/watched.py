"""Serve requests that end when their client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from .asgi import Receive, Scope, Send
from .disconnect import DisconnectWatcher
from .problems import answer_nobody, end_cancelled, problem_of, refuse
from .request import check_query

WATCHER = "jetmap.watcher"  # Key of a scope.


class WatchedRoute(APIRoute):
    """A route of FastAPI that ends when the client leaves."""

    debug = False

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # 405
            return

        async def serve(send: Send, watcher: DisconnectWatcher) -> None:
            check_query(scope["query_string"])
            scope[WATCHER] = watcher
            await super(WatchedRoute, self).handle(scope, receive, send)

        await serve_watched(serve, send, self.debug)


async def serve_watched(
    serve: Callable[[Send, DisconnectWatcher], Awaitable[None]], send: Send, debug: bool
) -> None:
    """Serve one request: refusals become problems, and a client that leaves ends it."""
    watcher = DisconnectWatcher()
    started = False

    async def sending(message: Any) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        with watcher:
            await serve(sending, watcher)
    except asyncio.CancelledError:
        await end_cancelled(send, answering=started or watcher.left)
    except Exception as exc:
        if started:  # The answer breaks off, which the client sees.
            raise
        if not watcher.left:
            await refuse(send, problem_of(exc, debug))
    if watcher.left and not started:
        await answer_nobody(send)


def watch(request: Request) -> None:
    """End the request when its client leaves from now on."""
    watcher: DisconnectWatcher = request.scope[WATCHER]
    watcher.watch(request.receive)
