"""A line between a process and its broker, which a test cuts and mends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nodes import free_ports


class Proxy:
    """url: where the broker is to be reached; while the line is cut, nobody listens there.

    delay: seconds that each byte takes, both ways.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self._delay = delay
        [self._own_port] = free_ports(1)
        self.url = f"nats://127.0.0.1:{self._own_port}"
        self._port = port
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._own_port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(
                _pass(reader, back, self._delay), _pass(there, writer, self._delay)
            )
        except asyncio.CancelledError:
            pass  # It is cut.
        finally:
            self._passing.discard(task)
            for end in (writer, back):
                end.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(1 << 16):
            if delay:
                loop.call_later(delay, writer.write, data)
                continue
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # One of its ends is gone.
    finally:
        writer.close()


@asynccontextmanager
async def proxy(port: int, delay: float = 0.0) -> AsyncIterator[Proxy]:
    """port: the broker's. delay: seconds that each byte takes, both ways."""
    line = Proxy(port, delay)
    await line.mend()
    try:
        yield line
    finally:
        await line.cut()
