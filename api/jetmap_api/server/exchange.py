"""One request and its answer: the ASGI side of a connection."""

from __future__ import annotations

import asyncio
import http
import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import httptools

from jetmap_api.asgi import ARRIVED, App, AsgiMessage, Header, Scope
from jetmap_api.problems import Problem, refuse

from .refusals import connect, other_version, two_hosts, unknown_coding
from .upgrade import OFFERS

if TYPE_CHECKING:
    from .connection import HttpConnection

logger = logging.getLogger(__name__)

VERSION = b"HTTP/1.1 "
# Leading zeros of a chunk's size that may be sent ahead of it; parsers take sixteen digits.
MOST_ZEROS = 8
# Bytes of a piece of body that is joined with the head; larger ones are not copied.
JOINED_BYTES = 16_384

_BAD_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
AnswerFraming = Literal["none", "length", "chunked", "close"]

_BODILESS = frozenset({204, 304})
_FAILED = Problem(
    500, "internal", "Unexpected error in the gateway", "the gateway's log has the details"
)


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"%b%d %b\r\n" % (VERSION, status, phrase.encode())


_FIELD = b"%b: %b\r\n".__mod__


@lru_cache(maxsize=1024)
def _header_lines(headers: tuple[Header, ...]) -> tuple[bytes, int | None, bool]:
    """Return the lines of an answer's headers, its length if they say it, and whether they close
    the connection. Raises RuntimeError: one is invalid.
    """
    lines: list[bytes] = []
    length, closes = None, False
    for name, value in headers:
        if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
            raise RuntimeError(f"invalid header {name!r}")
        name = name.lower()
        if name == b"transfer-encoding":
            continue  # The framing is ours.
        if name == b"content-length":
            length = int(value)
        elif name == b"connection":
            closes = b"close" in value.lower()
        lines.append(_FIELD((name, value)))
    return b"".join(lines), length, closes


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


def read_scope(parser: Any, url: bytes, headers: list[Header], root_path: str) -> Scope:
    """Make the scope of a request from its head, without an offer to upgrade.

    parser: httptools', after the head. Raises Problem: 400, 405, 501, 505.
    """
    version: str = parser.get_http_version()
    method: str = parser.get_method().decode("ascii")
    if method == "CONNECT":
        raise connect()
    if version not in ("1.1", "1.0"):
        raise other_version()
    found = dict(headers)
    if b"transfer-encoding" in found:
        codings = b", ".join(value for name, value in headers if name == b"transfer-encoding")
        if codings.strip().lower() != b"chunked":
            raise unknown_coding(codings)
    if len(found) < len(headers) and [name for name, _ in headers].count(b"host") > 1:
        raise two_hosts()
    # The address of ``OPTIONS *`` has no parts.
    parts = None if url == b"*" else httptools.parse_url(url)
    raw_path: bytes = (parts and parts.path) or b"/"
    path = raw_path.decode("ascii")
    if "%" in path:
        path = unquote(path)
    if parser.should_upgrade():
        headers = [header for header in headers if header[0] not in OFFERS]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version,
        "scheme": "http",
        "method": method,
        "root_path": root_path,
        "path": root_path + path if root_path else path,
        "raw_path": root_path.encode() + raw_path,
        "query_string": (parts and parts.query) or b"",
        "headers": headers,
    }


class Exchange:
    """A request that arrives, and the answer that is sent.

    arriving: the body goes on. left: the client is gone, so nothing more is received or sent.
    started, complete: how far the answer is.
    """

    __slots__ = (
        "_ahead",
        "_app",
        "_connection",
        "_delivered",
        "_event",
        "_expects_continue",
        "_framing",
        "_head",
        "_parts",
        "_remaining",
        "_zeros",
        "arriving",
        "buffered",
        "complete",
        "keep_alive",
        "left",
        "scope",
        "started",
    )

    def __init__(
        self,
        connection: HttpConnection,
        app: App,
        scope: Scope,
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.arriving = True
        self.left = False
        self.started = False
        self.complete = False
        self.buffered = 0  # bytes of the body that the application has not received
        self._connection = connection
        self._app = app
        self._expects_continue = expects_continue
        self._parts: list[bytes] = []
        self._delivered = False  # whether the body's end was received
        self._event: asyncio.Event | None = None
        self._ahead = 0  # bytes of the status line that are sent already
        self._zeros = 0  # leading zeros of the next chunk's size that are sent already
        self._framing: AnswerFraming = "none"
        self._head = b""  # of the answer, until the first bytes of its body are sent with it
        self._remaining = 0  # bytes to come of an answer of known length

    async def run(self) -> None:
        """Have the application answer. Whatever it does, the client gets an answer or a cut."""
        try:
            await self._app(self.scope, self.receive, self.send)
        except BaseException as exc:
            logger.error("the application failed", exc_info=exc)
        else:
            if not self.complete and not self.left:
                logger.error("the application returned without an answer")
        if self.complete or self.left:
            return
        if self._head:  # None of the answer is sent.
            self._head, self.started = b"", False
        if self.started:  # The answer must not look whole.
            self._connection.cut(self._framing == "close")
            return
        self.keep_alive = False
        await refuse(self.send, _FAILED)

    # The request

    def add_body(self, data: bytes) -> None:
        """Take a piece of the body; drop it once the answer is complete."""
        if not self.complete:
            self._parts.append(data)
            self.buffered += len(data)
            self.wake()

    def end_body(self) -> None:
        self.arriving = False
        self.scope[ARRIVED] = True
        self.wake()

    def leave(self) -> None:
        """Note that the client is gone, or that its bytes make no sense."""
        self.left = True
        self.wake()

    def wake(self) -> None:
        if self._event is not None:
            self._event.set()

    async def receive(self) -> AsgiMessage:
        """ASGI: return the next piece of the body, or the disconnect."""
        if self._expects_continue:
            self._expects_continue = False
            if not self.started and self.arriving and not self._parts:
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            if self.left or self.complete:
                return {"type": "http.disconnect"}
            if self._parts or not (self.arriving or self._delivered):
                self._delivered = not self.arriving
                body = b"".join(self._parts)
                self._parts.clear()
                self.buffered = 0
                return {"type": "http.request", "body": body, "more_body": self.arriving}
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            self._connection.resume_reading()
            await self._event.wait()

    # The answer

    async def send(self, message: AsgiMessage) -> None:
        """ASGI: send the head of the answer, or a piece of its body."""
        connection = self._connection
        if connection.is_full and not self.left:
            await connection.drain()
        if self.left:
            return
        kind = message["type"]
        if self.complete or kind != (
            "http.response.body" if self.started else "http.response.start"
        ):
            raise RuntimeError(f"unexpected ASGI message {kind!r}")
        if not self.started:
            self._send_head(message["status"], message.get("headers", ()))
        else:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    def probe(self) -> bool:
        """Send a byte of the answer that comes in any case; False if there is none to send.

        A client that closed its socket answers it with a reset; one that has only finished sending
        waits on.
        """
        if not self.started and self._ahead < len(VERSION):
            self._connection.write(VERSION[self._ahead : self._ahead + 1])
            self._ahead += 1
        elif self._framing == "chunked" and not self.complete and self._zeros < MOST_ZEROS:
            self._connection.write(b"0")
            self._zeros += 1
        else:
            return False
        return True

    def _send_head(self, status: int, headers: Iterable[Header]) -> None:
        lines, length, closes = _header_lines(tuple(map(tuple, headers)))
        content = [STATUS_LINES[status], *map(_FIELD, self._connection.default_headers), lines]
        # For HTTP/1.0, the end of the connection is the end of the answer.
        framing: AnswerFraming = "close" if self.scope["http_version"] == "1.0" else "chunked"
        if length is not None:
            self._remaining = length
            framing = "length"
        if status in _BODILESS or self.scope["method"] == "HEAD":
            framing = "none"
        if framing == "chunked":
            content.append(b"transfer-encoding: chunked\r\n")
        if closes or framing == "close" or (self._expects_continue and self.arriving):
            # A client that waits for 100 (Continue) may send the body after this answer, or not,
            # so the next bytes could be either.
            self.keep_alive = False
        self._framing = framing
        if not self.keep_alive and not closes:
            content.append(b"connection: close\r\n")
        content.append(b"\r\n")
        self.started = True
        head = b"".join(content)[self._ahead :]
        if framing == "length" and self._remaining:
            self._head = head
        else:
            self._connection.write(head)

    def _send_body(self, body: bytes, more: bool) -> None:
        if self._framing == "chunked":
            if body:
                self._zeros = 0
                self._connection.write(b"%x\r\n%b\r\n" % (len(body), body))
            if not more:
                self._connection.write(b"0\r\n\r\n")
        elif self._framing == "length":
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the answer is not as long as its Content-Length")
            if self._head and body:
                # One write for both: each is a system call.
                if len(body) <= JOINED_BYTES:
                    body = self._head + body
                else:
                    self._connection.write(self._head)
                self._head = b""
            self._connection.write(body)
        elif self._framing == "close" and body:
            self._connection.write(body)
        if not more:
            self.complete = True
            self._parts.clear()
            self.wake()
            self._connection.on_answered(self)
