"""A gateway on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from jetmap import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from jetmap_api.server import GatewayServer
from waiting import PATIENCE, wait_until


class Signing(BaseHTTPMiddleware):
    """Middleware that many applications have."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-signed"] = "yes"
        return response


@asynccontextmanager
async def served(
    cluster: Cluster,
    settings: Settings | None = None,
    *,
    middleware: bool = False,
    plain: str = "",
) -> AsyncIterator[int]:
    """Its port on 127.0.0.1, in this process and this event loop.

    middleware: the user has added some of a kind that answers in a task of its own. plain: the
    server is the user's own uvicorn with this parser (``httptools``, ``h11``).
    """
    settings = settings or Settings()
    app = create_app(cluster, settings)
    if middleware:
        app.add_middleware(Signing)
    if plain:
        config = uvicorn.Config(app, log_level="error", lifespan="off", http=plain)
        async with listening(uvicorn.Server(config)) as port:
            yield port
        return
    async with gateway(app, settings) as (_, port):
        yield port


@asynccontextmanager
async def gateway(app: Any, settings: Settings) -> AsyncIterator[tuple[GatewayServer, int]]:
    """An application behind the gateway's own server, and its port."""
    state = getattr(app, "state", None)
    more = {} if state is None else {"on_refusal": state.refusals}
    server = GatewayServer(
        app, settings.limits, most=settings.limits.max_connections, grace=5, **more
    )
    async with listening(server) as port:
        yield server, port


@asynccontextmanager
async def listening(server: uvicorn.Server) -> AsyncIterator[int]:
    """A server that runs, and its port."""
    # Named as TCP, or asyncio lets Nagle's algorithm hold each answer for 40 ms.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started, "the server listens")
        try:
            yield listener.getsockname()[1]
        finally:  # Or uvloop would wait for ever for the sockets of a test that fails.
            server.should_exit = True
            await asyncio.wait_for(serving, PATIENCE)
