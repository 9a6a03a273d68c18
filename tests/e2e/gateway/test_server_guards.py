"""No client can take the gateway from the others: heads, silence, drips, unread answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jetmap.settings import Settings
from jetmap_api.asgi import Receive, Scope, Send, respond
from jetmap_api.server import GatewayServer
from jetmap_api.server.guard import (
    LINGER,
    Overhead,
    Waiting,
    WaitingList,
    connections_allowed,
)
from served import gateway
from waiting import wait_until

pytestmark = pytest.mark.anyio

KIB = 1024
GET = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


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
            return await asyncio.wait_for(reader.read(), 20)

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
            await asyncio.wait_for(writer.drain(), 20)
    except OSError:
        pass
    return sent


# Heads


@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        (GET + b"X: ", b"x" * 4096, 431),
        (GET, b"x: y\r\n" * 600, 431),
        (GET + b"x", b"x" * 4096, 431),
        (b"GET /", b"x" * 4096, 414),
        (b"GET /?", b"x=1&" * 1024, 414),
        (b"G", b"E" * 4096, 400),
        (b"", b"\r\n" * 2048, 431),
    ],
    ids=["value", "many", "name", "path", "query", "method", "empty lines"],
)
async def test_an_endless_head_is_refused_at_once(start: bytes, more: bytes, status: int) -> None:
    """Little more than the limit is read of it, and the connection ends while it still sends."""
    async with site() as it, it.connection(start) as (reader, writer):
        sending = asyncio.create_task(flood(writer, more, 1 << 30))
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 20)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"application/problem+json" in answer
        # What the kernels' buffers take comes on top.
        assert await sending < 16 << 20
        await wait_until(lambda: it.open == 0, "the connection is dropped")
        assert it.app.asked == 0
        await it.still_answers()


async def test_a_head_in_many_packets_is_as_long_as_in_one() -> None:
    async with site(max_header_bytes=2 * KIB) as it:
        for size, status in ((1900, 200), (2200, 431)):
            head = GET + b"Connection: close\r\nX: "
            head += b"x" * (size - len(head) - 4) + b"\r\n\r\n"
            assert (await it.ask(head)).startswith(b"HTTP/1.1 %d" % status)
            async with it.connection() as (reader, writer):
                writer.transport.set_write_buffer_limits(0)
                for at in range(0, size, 50):
                    writer.write(head[at : at + 50])
                    await asyncio.sleep(0)
                answer = await asyncio.wait_for(reader.read(), 20)
                assert answer.startswith(b"HTTP/1.1 %d" % status)


async def test_a_head_has_a_number_of_headers() -> None:
    async with site() as it:
        most = b"".join(b"x%d: y\r\n" % n for n in range(256))
        answer = await it.ask(GET + most + b"\r\n", end=True)
        assert answer.startswith(b"HTTP/1.1 431") and b"256" in answer
        few = b"".join(b"x%d: y\r\n" % n for n in range(200))
        assert (await it.ask(GET + few + b"\r\n", end=True)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("what", ["trailers", "one trailer", "extension", "extensions"])
async def test_endless_trailers_and_chunk_extensions_are_refused(what: str) -> None:
    start, more = {
        "trailers": (b"0\r\n", b"x: y\r\n" * 600),
        "one trailer": (b"0\r\nx: ", b"y" * 4096),
        "extension": (b"1;x=", b"y" * 4096),
        "extensions": (b"", (b"1;x=" + b"y" * 1000 + b"\r\nz\r\n") * 4),
    }[what]
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with site() as it, it.connection(head + start) as (reader, writer):
        sending = asyncio.create_task(flood(writer, more, 1 << 30))
        assert (await asyncio.wait_for(reader.readuntil(b"}"), 20)).startswith(b"HTTP/1.1 400")
        assert await sending < 16 << 20
        await wait_until(lambda: it.open == 0, "the connection is dropped")


async def test_small_chunks_and_a_few_trailers_are_a_body() -> None:
    body = b"".join(b"1\r\nx\r\n" for _ in range(50_000)) + b"0\r\nx-sum: 1\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with site() as it:
        answer = await it.ask(head + body, end=True)
    assert answer.endswith(b"x" * 50_000)


def test_a_head_within_a_piece_of_a_body_is_counted_from_the_next_piece() -> None:
    overhead = Overhead(100)
    overhead.progress()
    overhead.progress(50)
    assert not overhead.fed(100)
    assert overhead.bytes == 0
    assert not overhead.fed(100)
    assert overhead.fed(1)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT other:80 HTTP/1.1\r\nHost: other\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 400),
        (GET + b"a b: c\r\n\r\n", 400),
        (GET + b"a: b\0c\r\n\r\n", 400),
        (b"GET \xff HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_what_is_not_http_is_a_problem(request_: bytes, status: int) -> None:
    async with site() as it:
        answer = await it.ask(request_, end=True)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status
        await it.still_answers()


# Silence


@pytest.mark.parametrize("data", [b"", b"G", GET, GET + b"X: y"])
async def test_who_does_not_end_its_head_is_cut_off(data: bytes) -> None:
    async with site(header_timeout=0.2) as it:
        answer = await it.ask(data)
        assert answer.startswith(b"HTTP/1.1 408") if data else answer == b""
        await wait_until(lambda: it.open == 0, "nothing is left")


async def test_a_head_that_drips_is_cut_off() -> None:
    async with site(header_timeout=0.3) as it, it.connection() as (reader, writer):
        for byte in GET * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if not it.open:
                break
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 408")


async def test_the_second_head_of_a_connection_has_its_time_too() -> None:
    async with site(header_timeout=0.2, keep_alive=60) as it:
        answers = await it.ask(GET + b"\r\n" + GET)
        assert answers.count(b"HTTP/1.1 200") == 1
        async with it.connection(GET + b"\r\n") as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(GET)
            assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 408")


async def test_a_connection_is_kept_for_the_time_of_the_setting() -> None:
    assert Settings().limits.keep_alive == 75
    async with site(keep_alive=0.2, header_timeout=60) as it:
        answer = await it.ask(GET + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" not in answer
    async with site(header_timeout=0.1) as it, it.connection(GET + b"\r\n") as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)  # The other limits do not hold for an idle connection.
        writer.write(GET + b"\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).startswith(b"HTTP/1.1 2")


async def test_an_answer_may_take_longer_than_all_timeouts() -> None:
    short = {"header_timeout": 0.1, "keep_alive": 0.1, "body_idle_timeout": 0.1}
    async with (
        site(**short) as it,
        it.connection(GET.replace(b"echo", b"wait") + b"\r\n") as (
            reader,
            _,
        ),
    ):
        await wait_until(lambda: it.app.waiting == 1, "it waits")
        await asyncio.sleep(0.5)
        it.app.go.set()
        assert b"two" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)


async def test_a_body_that_nobody_wants_ends_too() -> None:
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    async with site(body_idle_timeout=0.2) as it:
        answer = await it.ask(head + b"x")
        assert answer.startswith(b"HTTP/1.1 401")
        async with it.connection(head) as (reader, writer):  # It drips.
            await reader.readuntil(b"\r\n\r\n")
            assert await flood_slowly(writer, lambda: it.open == 0) < 1000
    async with site(body_idle_timeout=60) as it:
        answers = await it.ask(head + b"x" * 1000 + GET + b"Connection: close\r\n\r\n")
        assert answers.count(b"HTTP/1.1") == 2 and b"HTTP/1.1 200" in answers


async def flood_slowly(writer: asyncio.StreamWriter, over: Callable[[], bool]) -> int:
    sent = 0
    while not over():
        writer.write(b"x")
        sent += 1
        await asyncio.sleep(0.01)
    return sent


async def test_who_does_not_read_its_answer_is_cut_off() -> None:
    request = GET.replace(b"echo", b"flood") + b"\r\n"
    async with site(send_timeout=0.5) as it, it.connection(request) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: it.app.left == 1, "the answer is given up", 20)
        assert it.open == 0
        assert it.app.flooded < 64 << 20


async def test_who_reads_slowly_is_not() -> None:
    request = GET.replace(b"echo", b"flood") + b"\r\n"
    async with site(send_timeout=1) as it, it.connection(request) as (reader, _):
        for _ in range(6):
            await asyncio.sleep(0.4)
            await reader.readexactly(4 << 20)
        assert it.app.left == 0


async def test_an_answer_that_is_complete_but_not_read_holds_nothing_for_ever() -> None:
    body = b"x" * (4 << 20)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    short = {"send_timeout": 0.5, "keep_alive": 0.2}
    async with site(**short) as it, it.connection(head + body) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: it.app.asked == 1, "it is asked")
        await wait_until(lambda: it.open == 0, "it is cut off", 20)


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
        assert await asyncio.wait_for(first.read(), 20) == b""
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
            assert b"two" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)
            writer.close()


def test_as_many_connections_as_descriptors_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetmap_api.server.guard._descriptor_limit", lambda: 256)
    monkeypatch.setattr("jetmap_api.server.guard._open_descriptors", lambda: 56)
    assert connections_allowed(None) == 150
    assert connections_allowed(20) == 20
    assert connections_allowed(10_000) == 150


def test_the_longest_waiting_is_overdue_first() -> None:
    waiting: WaitingList[str] = WaitingList(10)
    for now, name in enumerate("abc"):
        waiting.add(name, now)
    waiting.add("a", 3)
    assert waiting.pop_overdue(10.5) == []
    assert waiting.pop_overdue(12) == ["b", "c"]
    assert waiting.oldest() == "a" and len(waiting) == 1


def test_who_said_least_makes_room_first() -> None:
    waiting: Waiting[str] = Waiting(
        header_timeout=1, keep_alive=1, body_idle_timeout=1, send_timeout=1, linger=LINGER
    )
    waiting.idle.add("idle", 0)
    waiting.silent.add("silent", 1)
    waiting.silent.add("new", 2)
    waiting.unread.add("busy", 0)
    order = []
    while (victim := waiting.least_wanted("new")) is not None:
        order.append(victim)
        waiting.discard(victim)
    assert order == ["silent", "idle"]


# How a connection ends


@pytest.mark.parametrize("path", [b"echo", b"wait"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_who_only_ends_its_sending_side_gets_its_answer(path: bytes, version: bytes) -> None:
    request = GET.replace(b"echo", path).replace(b"1.1", version) + b"\r\n"
    async with site() as it, it.connection(request) as (reader, writer):
        writer.write_eof()
        if path == b"wait":
            await wait_until(lambda: it.app.waiting == 1, "it waits")
            await asyncio.sleep(0.6)  # Until it was looked at more than once.
        it.app.go.set()
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        body = answer.partition(b"\r\n\r\n")[2]
        if path == b"wait":
            chunks = b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
            assert body == (b"one two" if version == b"1.0" else chunks)
        assert it.app.left == 0


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_who_leaves_is_noticed(version: bytes) -> None:
    """A closed socket and a half-closed one look alike, until they are sent something."""
    request = GET.replace(b"echo", b"wait").replace(b"1.1", version) + b"\r\n"
    async with site() as it:
        async with it.connection(request):
            await wait_until(lambda: it.app.waiting == 1, "it waits")
        await wait_until(lambda: it.app.left == 1, "its departure is noticed")
        assert it.open == 0


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
        await asyncio.wait_for(left.wait(), 10)


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
        assert await asyncio.wait_for(reader.readexactly(2), 10) == b"00"
        go.set()
        rest = b"00" + await asyncio.wait_for(reader.read(), 20)
        writer.close()
    size, _, rest = rest.partition(b"\r\n")
    assert (int(size, 16), rest) == (26, b"x" * 26 + b"\r\n0\r\n\r\n")


async def test_http_1_0_gets_no_chunks() -> None:
    request = GET.replace(b"echo", b"wait").replace(b"1.1", b"1.0")
    async with site() as it:
        it.app.go.set()
        answer = await it.ask(request + b"Connection: keep-alive\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert body == b"one two"


async def test_a_head_request_has_no_body() -> None:
    async with site() as it:
        it.app.go.set()
        request = GET.replace(b"GET /echo", b"HEAD /wait") + b"\r\n"
        answers = await it.ask(request + GET + b"Connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200") == 2 and b"two" not in answers


@pytest.mark.parametrize("started", [False, True])
async def test_a_failing_application_is_seen(
    started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
        raise ValueError("on purpose")

    async with gateway(failing, Settings()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    if started:
        assert answer.endswith(b"one\r\n")
    else:
        assert answer.startswith(b"HTTP/1.1 500") and b"problem+json" in answer
    assert "on purpose" in caplog.text


async def test_bytes_behind_the_last_request_are_no_fault_of_it() -> None:
    async with site() as it:
        answer = await it.ask(GET + b"Connection: close\r\n\r\n" + b"x" * 1000)
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


async def test_a_server_that_stops_finishes_what_it_answers() -> None:
    app = App()
    async with gateway(app, Settings()) as (server, port):
        idle = await asyncio.open_connection("127.0.0.1", port)
        busy = await asyncio.open_connection("127.0.0.1", port)
        busy[1].write(GET.replace(b"echo", b"wait") + b"\r\n")
        await wait_until(lambda: app.waiting == 1, "it waits")
        server.should_exit = True
        assert await asyncio.wait_for(idle[0].read(), 20) == b""
        app.go.set()
        answer = await asyncio.wait_for(busy[0].read(), 20)
        assert answer.endswith(b"0\r\n\r\n")
        for _, writer in (idle, busy):
            writer.close()


async def test_many_connections_in_one_moment() -> None:
    """Each is taken or closed, and the server answers afterwards."""
    async with site(max_connections=50) as it:
        sockets = [socket.socket() for _ in range(400)]
        for each in sockets:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", it.port))
        await wait_until(lambda: it.server.guard.closed_silent >= 300, "they are there", 20)
        assert it.open <= 51
        await it.still_answers()
        for each in sockets:
            each.close()
