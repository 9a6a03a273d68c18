"""One request and its answer, on a connection that keeps what is written."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from jetmap_api.asgi import App
from jetmap_api.problems import Problem
from jetmap_api.server.exchange import VERSION, Exchange, read_scope

pytestmark = pytest.mark.anyio


class HttpConnection:
    def __init__(self) -> None:
        self.default_headers = [(b"date", b"now")]
        self.output = b""
        self.is_full = False
        self.answered: list[Any] = []
        self.cuts: list[bool] = []

    def write(self, data: bytes) -> None:
        self.output += data

    def on_answered(self, exchange: Any) -> None:
        self.answered.append(exchange)

    def cut(self, hard: bool) -> None:
        self.cuts.append(hard)

    def resume_reading(self) -> None:
        pass


async def never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def made(
    method: str = "GET", version: str = "1.1", app: App = never, **more: Any
) -> tuple[Exchange, Any]:
    connection: Any = HttpConnection()
    scope = {"method": method, "http_version": version}
    options = {"keep_alive": True, "expects_continue": False} | more
    return Exchange(connection, app, scope, **options), connection


async def head(exchange: Exchange, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})


async def body(exchange: Exchange, data: bytes = b"", more: bool = False) -> None:
    await exchange.send({"type": "http.response.body", "body": data, "more_body": more})


async def test_an_answer_of_known_length() -> None:
    exchange, connection = made()
    await head(exchange, (b"Content-Length", b"2"))
    await body(exchange, b"ok")
    assert connection.output == b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok"
    assert connection.answered == [exchange] and exchange.keep_alive


async def test_an_answer_of_unknown_length_is_chunked() -> None:
    exchange, connection = made()
    await head(exchange)
    await body(exchange, b"abc", more=True)
    await body(exchange, b"", more=True)
    await body(exchange)
    assert connection.output.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_http_1_0_gets_bytes_until_the_end() -> None:
    exchange, connection = made(version="1.0")
    await head(exchange)
    await body(exchange, b"abc")
    assert connection.output.endswith(b"connection: close\r\n\r\nabc") and not exchange.keep_alive


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_answers_without_a_body(method: str, status: int) -> None:
    exchange, connection = made(method)
    await head(exchange, status=status)
    await body(exchange, b"x")
    assert connection.output.endswith(b"\r\n\r\n") and exchange.complete


async def test_wrong_answers_are_errors() -> None:
    exchange, _ = made()
    with pytest.raises(RuntimeError, match="unexpected ASGI message"):
        await body(exchange)
    with pytest.raises(RuntimeError, match="invalid header"):
        await head(exchange, (b"a", b"b\r\nc: d"))
    await head(exchange, (b"content-length", b"1"))
    with pytest.raises(RuntimeError, match="not as long"):
        await body(exchange, b"ab")


async def test_the_body_is_received_in_pieces_and_then_the_disconnect() -> None:
    exchange, _ = made()
    exchange.add_body(b"a")
    exchange.add_body(b"b")
    assert await exchange.receive() == {"type": "http.request", "body": b"ab", "more_body": True}
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    exchange.end_body()
    assert await waiting == {"type": "http.request", "body": b"", "more_body": False}
    exchange.leave()
    assert await exchange.receive() == {"type": "http.disconnect"}


async def test_a_client_that_waits_for_it_is_told_to_continue_once() -> None:
    exchange, connection = made(expects_continue=True)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    assert connection.output == b"HTTP/1.1 100 Continue\r\n\r\n"
    exchange.end_body()
    await waiting


async def test_probes_are_the_first_bytes_of_the_answer() -> None:
    exchange, connection = made()
    assert exchange.probe() and exchange.probe()
    assert connection.output == VERSION[:2]
    await head(exchange, (b"content-length", b"0"))
    assert connection.output.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not exchange.probe()


async def test_a_failing_application_is_a_500_or_a_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async def begins(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    exchange, connection = made(app=fails)
    await exchange.run()
    assert connection.output.startswith(b"HTTP/1.1 500") and not exchange.keep_alive
    exchange, connection = made(app=begins)
    await exchange.run()
    assert connection.cuts == [False]


class Parser:
    """A parser after the head of a request."""

    def __init__(self, method: bytes = b"GET", version: str = "1.1", upgrade: bool = False) -> None:
        self.get_method = lambda: method
        self.get_http_version = lambda: version
        self.should_upgrade = lambda: upgrade


def test_a_scope_is_made_of_the_head() -> None:
    scope = read_scope(Parser(b"POST"), b"/a%20b/%C3%BC?c=%20", [(b"x", b"y")], "/root")
    assert (scope["method"], scope["path"], scope["query_string"]) == (
        "POST",
        "/root/a b/ü",
        b"c=%20",
    )
    assert scope["raw_path"] == b"/root/a%20b/%C3%BC" and scope["headers"] == [(b"x", b"y")]
    assert read_scope(Parser(b"OPTIONS"), b"*", [], "")["path"] == "/"


def test_an_offer_to_upgrade_is_not_in_the_scope() -> None:
    headers = [(b"upgrade", b"h2c"), (b"host", b"x")]
    assert read_scope(Parser(upgrade=True), b"/", headers, "")["headers"] == [(b"host", b"x")]


def test_a_request_for_two_hosts_is_refused() -> None:
    with pytest.raises(Problem, match="more than one Host") as caught:
        read_scope(Parser(), b"/", [(b"host", b"localhost"), (b"host", b"evil.example")], "")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("parser", "status"), [(Parser(b"CONNECT"), 405), (Parser(version="2.0"), 505)]
)
def test_other_methods_and_versions_are_refused(parser: Parser, status: int) -> None:
    with pytest.raises(Problem) as caught:
        read_scope(parser, b"/", [], "")
    assert caught.value.status == status
