"""No client can take the gateway from the others: heads, silence, drips, unread answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jetmap.settings import Settings
from jetmap_api.asgi import Receive, Scope, Send, respond
from jetmap_api.server import GatewayServer
from served import gateway
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio

GET = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}  # As in ``jetmap api``.


class App:
    """``/echo`` answers with its body, ``/wait`` once ``go`` is set, ``/flood`` without end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = 0
        self.waiting = 0
        self.left = 0
        self.flooded = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        path = scope["path"]
        if path == "/early":
            await respond(send, 401, b"text/plain", b"no")
        elif path == "/flood":
            await self._flood(receive, send)
        elif path == "/wait":
            await self._wait(receive, send)
        else:
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    await respond(send, 200, b"text/plain", body)
                    return

    async def _wait(self, receive: Receive, send: Send) -> None:
        self.waiting += 1
        going = asyncio.ensure_future(self.go.wait())
        while not going.done():
            message = asyncio.ensure_future(receive())
            await asyncio.wait({going, message}, return_when=asyncio.FIRST_COMPLETED)
            if message.done() and message.result()["type"] == "http.disconnect":
                going.cancel()
                self.left += 1
                return
            message.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async def _flood(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.ensure_future(self._departure(receive))
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            self.flooded += 65536
            await asyncio.sleep(0)
        self.left += 1

    async def _departure(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class Site:
    def __init__(self, app: App, server: GatewayServer, port: int) -> None:
        self.app = app
        self.server = server
        self.port = port

    @property
    def open(self) -> int:
        return len(self.server.server_state.connections)

    @asynccontextmanager
    async def connection(
        self, data: bytes = b""
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def ask(self, data: bytes, *, end: bool = False) -> bytes:
        async with self.connection(data) as (reader, writer):
            if end:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), PATIENCE)

    async def still_answers(self) -> None:
        answer = await self.ask(GET + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")


@asynccontextmanager
async def site(**settings: Any) -> AsyncIterator[Site]:
    app = App()
    async with gateway(app, Settings(**settings)) as (server, port):
        yield Site(app, server, port)
        app.go.set()


async def flood(writer: asyncio.StreamWriter, data: bytes, most: int) -> int:
    """Send data over and over until the other side refuses it. Returns the bytes sent."""
    sent = 0
    try:
        while sent < most:
            writer.write(data)
            sent += len(data)
            await asyncio.wait_for(writer.drain(), PATIENCE)
    except OSError:
        pass
    return sent


# Heads


@pytest.mark.parametrize(
    ("start", "more", "status"),
    [(GET + b"X: ", b"x" * 4096, 431), (b"GET /", b"x" * 4096, 414), (b"", b"\r\n" * 2048, 431)],
    ids=["value", "path", "empty lines"],
)
async def test_an_endless_head_is_refused_at_once(start: bytes, more: bytes, status: int) -> None:
    """Little more than the limit is read of it, and the connection ends while it still sends."""
    async with site() as it, it.connection(start) as (reader, writer):
        sending = asyncio.create_task(flood(writer, more, 1 << 30))
        answer = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"application/problem+json" in answer
        # What the kernels' buffers take comes on top.
        assert await sending < 16 << 20
        await wait_until(lambda: it.open == 0, "the connection is dropped")
        assert it.app.asked == 0
        await it.still_answers()


# Silence


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a byte every now and then."""
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.01)


async def test_who_does_not_end_its_head_is_cut_off() -> None:
    """It says nothing, stops, drips, or does so after a request of its connection."""
    async with site(header_timeout=1.0, keep_alive=60) as it:
        nothing, stopped, second = await asyncio.gather(
            *(it.ask(data) for data in (b"", GET + b"X: y", GET + b"\r\n" + GET))
        )
        async with it.connection() as (reader, writer):
            dripping = asyncio.create_task(drip(writer, GET + b"X: " + b"x" * 10_000))
            dripped = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE)
            dripping.cancel()
        assert nothing == b""
        assert stopped.startswith(b"HTTP/1.1 408") and dripped.startswith(b"HTTP/1.1 408")
        assert second.startswith(b"HTTP/1.1 200") and b"HTTP/1.1 408" in second
        await wait_until(lambda: it.open == 0, "nothing is left")


async def test_a_connection_is_kept_for_the_time_of_the_setting() -> None:
    assert Settings().limits.keep_alive == 75
    async with site(keep_alive=0.2, header_timeout=60) as it:
        answer = await it.ask(GET + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" not in answer


async def test_an_answer_may_take_longer_than_all_timeouts() -> None:
    short = {"header_timeout": 0.1, "keep_alive": 0.1, "body_idle_timeout": 0.1}
    request = GET.replace(b"echo", b"wait") + b"\r\n"
    async with site(**short) as it, it.connection(request) as (reader, _):
        await wait_until(lambda: it.app.waiting == 1, "it waits")
        assert await it.ask(b"") == b""  # One that is silent was cut off meanwhile.
        await it.ask(b"")
        it.app.go.set()
        assert b"two" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), PATIENCE)


async def test_a_body_that_nobody_wants_ends_too() -> None:
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    async with site(body_idle_timeout=0.2) as it:
        answer = await it.ask(head + b"x")
        assert answer.startswith(b"HTTP/1.1 401")
        async with it.connection(head) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            dripping = asyncio.create_task(drip(writer, b"x" * 10_000))
            await wait_until(lambda: it.open == 0, "it is cut off")
            dripping.cancel()
    async with site(body_idle_timeout=60) as it:
        answers = await it.ask(head + b"x" * 1000 + GET + b"Connection: close\r\n\r\n")
        assert answers.count(b"HTTP/1.1") == 2 and b"HTTP/1.1 200" in answers


async def test_who_does_not_read_its_answer_is_cut_off() -> None:
    """One that has no end is given up; one that is complete holds nothing for ever."""
    body = b"x" * (4 << 20)
    whole = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    endless = GET.replace(b"echo", b"flood") + b"\r\n"
    async with (
        site(send_timeout=0.5, keep_alive=0.2) as it,
        it.connection(endless) as (_, one),
        it.connection(whole) as (_, other),
    ):
        for writer in (one, other):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: it.app.asked == 2, "both are asked")
        await wait_until(lambda: it.app.left == 1, "the answer is given up")
        await wait_until(lambda: it.open == 0, "they are cut off")
        assert it.app.flooded < 64 << 20


# Too many connections


async def test_the_connections_that_are_silent_longest_make_room() -> None:
    async with site(max_connections=10) as it:
        silent = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(10)]
        for number, (_, writer) in enumerate(silent):
            if number % 2:
                writer.write(GET)
        await wait_until(lambda: it.open == 10, "they are there")
        for _ in range(5):
            await it.still_answers()
        assert 0 < it.server.guard.closed_silent <= 5
        first, _ = silent[0]
        assert await asyncio.wait_for(first.read(), PATIENCE) == b""
        for _, writer in silent:
            writer.close()


async def test_requests_are_not_closed_for_new_connections() -> None:
    waiting = GET.replace(b"echo", b"wait") + b"\r\n"
    async with site(max_connections=3) as it:
        busy = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(3)]
        for _, writer in busy:
            writer.write(waiting)
        await wait_until(lambda: it.app.waiting == 3, "three requests wait")
        answer = await it.ask(GET + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after" in answer
        it.app.go.set()
        for reader, writer in busy:
            assert b"two" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), PATIENCE)
            writer.close()


async def test_many_connections_in_one_moment() -> None:
    """Each is taken or closed, and the server answers afterwards."""
    async with site(max_connections=50) as it:
        sockets = [socket.socket() for _ in range(400)]
        for each in sockets:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", it.port))
        await wait_until(lambda: it.server.guard.closed_silent >= 300, "they are there")
        assert it.open <= 51
        await it.still_answers()
        for each in sockets:
            each.close()


# How a connection ends


async def test_who_only_ends_its_sending_side_gets_its_answer() -> None:
    """A closed socket and a half-closed one look alike, until they are sent something."""
    async with site() as it:
        request = GET.replace(b"echo", b"wait") + b"\r\n"
        old = asyncio.ensure_future(it.ask(request.replace(b"1.1", b"1.0"), end=True))
        new = asyncio.ensure_future(it.ask(request, end=True))
        await wait_until(lambda: it.app.waiting == 2, "they wait")
        async with it.connection(request):
            await wait_until(lambda: it.app.waiting == 3, "a third one waits")
        # Meanwhile the others were looked at, too.
        await wait_until(lambda: it.app.left == 1, "its departure is noticed")
        assert it.open == 2
        it.app.go.set()
        chunks = b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
        for answer, body in ((await old, b"one two"), (await new, chunks)):
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.partition(b"\r\n\r\n")[2] == body
        assert it.app.left == 1


async def test_who_leaves_within_a_stream_is_noticed() -> None:
    """Nothing needs to be about to be sent."""
    started = asyncio.Event()
    left = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with gateway(stream, Settings()) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"\r\n")
        await started.wait()
        writer.close()
        await asyncio.wait_for(left.wait(), PATIENCE)


async def test_a_stream_to_a_half_closed_client_is_well_formed() -> None:
    """The bytes that probe the client are part of the next chunk's size."""
    go = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):
            await send({"type": "http.response.body", "body": b"x" * 26, "more_body": True})
            await go.wait()
        await send({"type": "http.response.body", "body": b""})

    async with gateway(stream, Settings()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"x" * 26 + b"\r\n")
        writer.write_eof()
        assert await asyncio.wait_for(reader.readexactly(2), PATIENCE) == b"00"
        go.set()
        rest = b"00" + await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
    size, _, rest = rest.partition(b"\r\n")
    assert (int(size, 16), rest) == (26, b"x" * 26 + b"\r\n0\r\n\r\n")


async def test_a_server_that_stops_finishes_what_it_answers() -> None:
    app = App()
    async with gateway(app, Settings()) as (server, port):
        idle = await asyncio.open_connection("127.0.0.1", port)
        busy = await asyncio.open_connection("127.0.0.1", port)
        busy[1].write(GET.replace(b"echo", b"wait") + b"\r\n")
        await wait_until(lambda: app.waiting == 1, "it waits")
        server.should_exit = True
        assert await asyncio.wait_for(idle[0].read(), PATIENCE) == b""
        app.go.set()
        answer = await asyncio.wait_for(busy[0].read(), PATIENCE)
        assert answer.endswith(b"0\r\n\r\n")
        for _, writer in (idle, busy):
            writer.close()
