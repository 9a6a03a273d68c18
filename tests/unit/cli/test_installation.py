"""An installation: its addresses, and the end of a part that cannot run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from jetmap.cli.exits import ChildFailed
from jetmap.cli.installation import Installation
from jetmap.cli.listening import listen
from jetmap.settings import Settings

pytestmark = pytest.mark.anyio


def installation() -> Installation:
    return Installation(Settings.of({"tasks": ["tasks.py"]}), register=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_gateway_is_reached_over_loopback(host: str) -> None:
    made = installation()
    made._listener = listen(host, 0)
    with made._listener:
        port = made._listener.getsockname()[1]
        assert made.address == ("127.0.0.1", port)
        assert made.url == f"http://127.0.0.1:{port}"


def test_without_a_store_or_registration() -> None:
    made = installation()
    assert (made.store, made.running, made.nats_user) == (None, None, "jetmap")


async def until(*parts: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    made = installation()
    made._supervise(*parts)
    try:
        await made.until(stop)
    finally:
        await made.stop(asyncio.Event())


async def test_it_lasts_until_it_is_stopped() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    await until(asyncio.sleep(600), stop=stop)


async def test_a_part_that_cannot_run_ends_it() -> None:
    async def fail() -> None:
        raise ChildFailed("worker", 4)

    with pytest.raises(ChildFailed, match="the worker ended with exit code 4"):
        await until(asyncio.sleep(600), fail(), stop=asyncio.Event())


async def test_waiting_for_a_gateway_that_answers() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        status = b"200 OK" if line.startswith(b"GET /healthz") else b"503 Busy"
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    made = installation()
    made._listener = socket.create_server(("127.0.0.1", 0))
    async with await asyncio.start_server(answer, sock=made._listener):
        await made.answers("/healthz", None)
        assert not await made._is_ok("/readyz")
