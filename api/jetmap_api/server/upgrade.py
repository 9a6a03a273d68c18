"""Ignore an offer of another protocol: feed the head without it to a new parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from jetmap_api.asgi import Header, Scope

if TYPE_CHECKING:
    from .connection import HttpConnection

# Headers that offer another protocol.
OFFERS = (b"upgrade", b"http2-settings")


def resumed(
    connection: HttpConnection, scope: Scope, url: bytes, headers: list[Header]
) -> tuple[Any, bytes]:
    """Make a parser for the rest of a request, and the head to feed it first."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] not in OFFERS]
    method, version = scope["method"].encode(), scope["http_version"].encode()
    head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version, b"".join(lines))
    return httptools.HttpRequestParser(_Resumed(connection)), head


class _Resumed:
    """The callbacks of a parser that reads the head of a request once more."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._again = True
        self.on_body = connection.on_body

    def on_message_begin(self) -> None:
        if not self._again:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._again:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._again:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._again:
            self._connection.on_headers_complete()

    def on_message_complete(self) -> None:
        self._again = False
        self._connection.on_message_complete()
