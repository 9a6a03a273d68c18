"""An offer to upgrade is taken out of the head, and the rest is parsed as HTTP/1.1."""

from __future__ import annotations

from typing import Any

from jetmap_api.server.upgrade import resumed


class HttpConnection:
    def __init__(self) -> None:
        self.called: list[Any] = []

    def on_message_begin(self) -> None:
        self.called.append("begin")

    def on_url(self, url: bytes) -> None:
        self.called.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.called.append(name)

    def on_headers_complete(self) -> None:
        self.called.append("headers")

    def on_body(self, body: bytes) -> None:
        self.called.append(body)

    def on_message_complete(self) -> None:
        self.called.append("complete")


def test_the_body_and_the_next_request_are_passed_on_but_not_the_head() -> None:
    connection: Any = HttpConnection()
    headers = [
        (b"host", b"x"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"A"),
        (b"content-length", b"2"),
    ]
    scope = {"method": "POST", "http_version": "1.1"}
    parser, head = resumed(connection, scope, b"/a?b", headers)
    assert head == b"POST /a?b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
    parser.feed_data(head)
    assert connection.called == []
    parser.feed_data(b"ok")
    assert connection.called == [b"ok", "complete"]
    parser.feed_data(b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n")
    assert connection.called[2:] == ["begin", b"/next", b"host", "headers", "complete"]
