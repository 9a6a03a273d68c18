"""A gateway on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from jetmap import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from waiting import wait_until


@asynccontextmanager
async def served(cluster: Cluster, settings: Settings | None = None) -> AsyncIterator[int]:
    """Its port on 127.0.0.1, in this process and this event loop."""
    app = create_app(cluster, settings or Settings())
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    # Named as TCP, or asyncio lets Nagle's algorithm hold each answer for 40 ms.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started, "the server listens")
        yield listener.getsockname()[1]
        server.should_exit = True
        await asyncio.wait_for(serving, 10)
