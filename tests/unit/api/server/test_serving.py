"""The server: a connection answers, and the guard's watch ends with it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from jetmap.settings import LimitSettings
from jetmap_api.asgi import respond
from jetmap_api.server import GatewayServer
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def app(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, 200, b"text/plain", scope["path"].encode())


async def test_it_serves_until_it_is_asked_to_stop() -> None:
    before = asyncio.all_tasks()
    server = GatewayServer(app, LimitSettings(), most=5, grace=1)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        await wait_until(lambda: server.started, "the server listens")
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET /here HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"/here")
        writer.close()
        server.should_exit = True
        await serving
    assert server.guard.most <= 5
    assert asyncio.all_tasks() == before
