"""One connection, fed bytes on a transport of its own: requests in order, answers, refusals."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from jetmap.settings import LimitSettings
from jetmap_api.asgi import respond
from jetmap_api.server.connection import MAX_HEADERS, HttpConnection
from jetmap_api.server.guard import Guard

pytestmark = pytest.mark.anyio


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.output = b""
        self.closed = self.ended = self.paused = False

    def write(self, data: Any) -> None:
        self.output += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with method, path and body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    text = f"{scope['method']} {scope['path']} ".encode() + body
    await respond(send, 200, b"text/plain", text)


class Server:
    """A connection, its transport, and the tasks that answer."""

    def __init__(self, app: Any = app, **limits: Any) -> None:
        self.refused: list[str] = []
        guard = Guard(
            LimitSettings(**limits), 10, lambda client, problem: self.refused.append(problem.slug)
        )
        config = SimpleNamespace(loaded_app=app, root_path="")
        self.state = SimpleNamespace(
            connections=set(), tasks=set(), default_headers=[], total_requests=0
        )
        self.connection = HttpConnection(guard, cast(Any, config), cast(Any, self.state), {})
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    async def feed(self, *pieces: bytes) -> bytes:
        for piece in pieces:
            self.connection.data_received(piece)
        while self.state.tasks:
            await asyncio.wait(self.state.tasks)
        return self.transport.output

    def leave(self) -> None:
        self.connection.connection_lost(None)


async def test_a_request_in_any_pieces() -> None:
    data = b"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    for size in (1, 7, len(data)):
        server = Server()
        output = await server.feed(*(data[at : at + size] for at in range(0, len(data), size)))
        assert output.startswith(b"HTTP/1.1 200 OK") and output.endswith(b"POST /a b abc")
        assert not server.transport.closed
        server.leave()


async def test_pipelined_requests_are_answered_in_order() -> None:
    server = Server()
    output = await server.feed(
        b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(3))
    )
    assert [output.index(b"GET /%d" % n) for n in range(3)] == sorted(
        output.index(b"GET /%d" % n) for n in range(3)
    )
    assert server.state.total_requests == 3 and not server.transport.paused
    server.leave()


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_kept(protocol: bytes) -> None:
    """However the request is cut in two, and with another one behind it."""
    offer = b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"
    head = b"POST /u HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 3\r\n\r\n"
    data = head + b"abc" + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
    for at in (0, 30, len(head), len(head) + 1):
        server = Server()
        output = await server.feed(data[:at], data[at:])
        assert b"POST /u abc" in output and output.endswith(b"GET /next "), at
        server.leave()


async def test_only_headers_of_a_proxy_go_through_uvicorns_layer_for_them() -> None:
    async def shows(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 200, b"text/plain", f"{scope['scheme']} {scope['client']}".encode())

    server = Server(ProxyHeadersMiddleware(shows, "127.0.0.1"))
    for headers, shown in (
        (b"", b"http ('127.0.0.1', 1)"),
        (b"X-Forwarded-For: 1.2.3.4\r\n", b"http ('1.2.3.4', 0)"),
        (b"X-Forwarded-Proto: https\r\n", b"https ('127.0.0.1', 1)"),
    ):
        output = await server.feed(b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        assert output.endswith(shown)
    server.leave()


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"nonsense\r\n\r\n", "not-http"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "not-http"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not-http"),
        (b"GET / HTTP/3.0\r\n\r\n", "not-http"),
        (b"GET \xff HTTP/1.1\r\n\r\n", "not-http"),
        (b"GET / HTTP/1.1\r\na b: c\r\n\r\n", "not-http"),
        (b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n", "not-http"),
        (b"G" + b"E" * 4096, "not-http"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "method-not-allowed"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", "too-many-headers"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 3000, "head-too-large"),
        (b"GET / HTTP/1.1\r\n" + b"y" * 3000, "head-too-large"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 2100 + b"\r\n\r\n", "head-too-large"),
        (b"\r\n" * 2048, "head-too-large"),
        (b"GET /" + b"y" * 3000, "uri-too-long"),
        (b"GET /?" + b"x=1&" * 1024, "uri-too-long"),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n[1]", "not-http"),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n[1]", "not-http"),
        (POST + b"Content-Length: -3\r\n\r\n[1]", "not-http"),
        (POST + b"Content-Length: 3, 3\r\n\r\n[1]", "not-http"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n[1]", "unsupported-transfer-encoding"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "unsupported-transfer-encoding"),
        (
            POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "unsupported-transfer-encoding",
        ),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 2000, "malformed-body"),
        (CHUNKED + b"0\r\nx: " + b"y" * 4096, "malformed-body"),
        (CHUNKED + b"1;x=" + b"y" * 4096, "malformed-body"),
        (CHUNKED + (b"1;x=" + b"y" * 1000 + b"\r\nz\r\n") * 9, "malformed-body"),
    ],
)
async def test_refusals_close_the_connection(data: bytes, slug: str) -> None:
    """Large pieces and small ones give the same."""
    for step in (1000 if data.startswith(CHUNKED) else len(data), 1000, 50):
        server = Server(max_header_bytes=2048 if slug != "too-many-headers" else 65536)
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        for piece in pieces:
            if not server.refused:
                server.connection.data_received(piece)
                await asyncio.sleep(0)
        output = server.transport.output
        assert server.refused == [slug] and b"application/problem+json" in output
        assert b"connection: close" in output and server.transport.ended
        server.leave()
        await server.feed()


@pytest.mark.parametrize(
    "path, is_named", [("PRI * HTTP/2.0", True), ("GET /PRI\xff HTTP/1.1", False)]
)
async def test_http_2_is_named_where_it_is_spoken(path: str, is_named: bool) -> None:
    server = Server()
    output = await server.feed(f"{path}\r\n\r\nSM\r\n\r\n".encode("latin-1"))
    assert server.refused == ["not-http"]
    assert (b"HTTP/2 is not served here" in output) == is_named
    server.leave()


async def test_of_too_many_headers_few_are_kept() -> None:
    """Those of a request that waits for the answer before it, too."""
    many = b"GET / HTTP/1.1\r\n" + b"ab:cd\r\n" * 30_000
    server = Server()
    connection = server.connection
    connection.data_received(POST + b"Content-Length: 3\r\n\r\n[1")
    connection.data_received(b"]" + many)
    assert len(connection._headers) <= MAX_HEADERS
    assert (await server.feed()).count(b"HTTP/1.1") == 2
    assert server.refused == ["too-many-headers"]
    server.leave()


async def test_a_request_behind_an_offer_to_upgrade_is_refused_for_its_own_fault() -> None:
    offer = b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n[1]"
    many = b"GET / HTTP/1.1\r\n" + b"ab:cd\r\n" * (MAX_HEADERS + 1) + b"\r\n"
    server = Server()
    assert (await server.feed(POST + offer + many)).count(b"HTTP/1.1") == 2
    assert server.refused == ["too-many-headers"]
    server.leave()


async def test_what_is_within_the_limits_is_answered() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n"
    many = head + b"".join(b"x%d: y\r\n" % n for n in range(MAX_HEADERS - 5)) + b"\r\n"
    long = head + b"x: " + b"y" * 1900 + b"\r\n\r\n"
    body = b"".join(b"1\r\nx\r\n" for _ in range(5_000)) + b"0\r\nx-sum: 1\r\n\r\n"
    for data, limit in ((many, 65536), (long, 2048), (CHUNKED + body, 2048)):
        server = Server(max_header_bytes=limit)
        pieces = [data[at : at + 50] for at in range(0, len(data), 50)]
        assert (await server.feed(*pieces)).startswith(b"HTTP/1.1 200 OK"), data[:50]
        server.leave()


async def test_bytes_behind_the_last_request_are_not_its_fault() -> None:
    server = Server()
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    output = await server.feed(last + b"x" * 1000)
    assert output.startswith(b"HTTP/1.1 200") and output.count(b"HTTP/1.1") == 1
    server.leave()


async def test_a_body_longer_than_announced_is_not_taken_for_a_request() -> None:
    server = Server()
    output = await server.feed(POST + b"Content-Length: 3\r\n\r\n[1][2]\r\n\r\n")
    assert output.startswith(b"HTTP/1.1 200 OK") and output.count(b"HTTP/1.1 200") == 1
    assert server.refused == ["not-http"]
    server.leave()


async def test_http_1_0_closes_after_its_answer() -> None:
    server = Server()
    output = await server.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert b"transfer-encoding" not in output and (
        server.transport.closed or server.transport.ended
    )
    server.leave()


async def test_a_body_that_ends_too_early_is_refused() -> None:
    server = Server()
    server.connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
    server.connection.eof_received()
    await asyncio.sleep(0)
    assert server.refused == ["malformed-body"]
    server.leave()
    await server.feed()


async def test_a_client_that_reads_again_is_not_cut_off() -> None:
    server = Server()
    unread = server.connection._waiting.unread
    server.connection.pause_writing()
    assert server.connection in unread
    server.connection.resume_writing()
    assert server.connection not in unread and not server.transport.closed
    for hard in (False, True):
        server.connection.cut(hard)
        assert server.transport.closed
    server.leave()
