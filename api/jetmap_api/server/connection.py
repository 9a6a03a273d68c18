"""One connection: bytes in, requests out, with everything bounded that a client can send.

httptools parses. The rest is decided here (decision 0010): an offer to upgrade is ignored, heads
have a size and a time, and a client that closes only its sending side gets its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from jetmap_api.asgi import Header
from jetmap_api.problems import Problem

from .exchange import STATUS_LINES, Exchange, read_scope
from .guard import Guard, Overhead
from .refusals import (
    SHORT_BODY,
    TOO_MANY_CONNECTIONS,
    framing_too_large,
    head_too_large,
    refusal_of,
    too_many_headers,
    too_many_requests,
)
from .upgrade import resumed

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

logger = logging.getLogger(__name__)

# Bytes of a body that wait for the application before reading pauses.
HIGH_WATER = 64 << 10
# Headers of one request.
MAX_HEADERS = 256
# Headers that uvicorn's middleware reads, which a request without them need not pass.
FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})
# Requests that wait for the answers before them; reading pauses after the first.
MAX_PIPELINE = 1024
# Bytes dropped of a refused client, so that it reads the refusal.
MAX_LINGER = 256 << 10
# Seconds between probes whether a client that ended its sending side has left.
PROBES = (0.05, 0.1, 0.25, 0.6, 1.0, 3.0, 10.0, 30.0)


class HttpConnection(asyncio.Protocol):
    """The connection of one client, made by uvicorn."""

    # (With more than thirty attributes, each would be in a dictionary.)
    __slots__ = (
        "__weakref__", "_addresses", "_app", "_app_state", "_begun", "_current", "_direct",
        "_drained", "_dropped", "_ended", "_ending", "_guard", "_headers", "_in_head", "_last",
        "_limits", "_loop", "_overhead", "_parser", "_paused", "_piece", "_probe", "_queue",
        "_received", "_refusal", "_refused", "_root_path", "_seen", "_state", "_transport",
        "_unread", "_url", "_waiting", "is_full",
    )  # fmt: skip

    def __init__(
        self,
        guard: Guard,
        config: Config,
        server_state: ServerState,
        app_state: Any,
        _loop: Any = None,
    ) -> None:
        self._guard = guard
        self._waiting = guard.waiting
        self._limits = guard.limits
        self._app = self._direct = config.loaded_app
        if isinstance(self._app, ProxyHeadersMiddleware):
            self._direct = self._app.app
        self._root_path = config.root_path
        self._state = server_state
        self._app_state: dict[str, Any] = app_state
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._addresses: tuple[Any, Any] = (None, None)
        self._overhead = Overhead(guard.limits.max_header_bytes)
        # The request whose head arrives, the one whose body does, and the one that is answered.
        self._url = b""
        self._headers: list[Header] = []
        self._in_head = True
        self._begun = False  # whether anything of that head is there
        self._piece = 0  # bytes that are parsed now
        self._last: Exchange | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        # Flow
        self.is_full = False
        self._paused = False
        self._drained: asyncio.Event | None = None
        self._received = 0  # bytes
        self._seen = 0  # of these, when the guard last asked
        self._unread = 0  # bytes that the client had not read when the guard last asked
        self._dropped = 0  # bytes of an unwanted body
        # The end
        self._refused = False  # further bytes are dropped
        self._ended = False  # the client has ended its sending side
        self._ending = False  # no further request is read
        self._refusal: Problem | None = None  # to send after the answers to those
        self._probe: asyncio.Handle | None = None

    @property
    def default_headers(self) -> list[Header]:
        """The headers of every answer; uvicorn makes a new list each second."""
        return self._state.default_headers

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have another class
        connections: set[Any] = self._state.connections
        connections.add(self)
        self._addresses = (
            _address(self._transport, "sockname"),
            _address(self._transport, "peername"),
        )
        self._waiting.silent.add(self, self._loop.time())
        if not self._guard.admit(self, len(connections)):
            self._refuse(TOO_MANY_CONNECTIONS)

    def connection_lost(self, exc: Exception | None) -> None:
        connections: set[Any] = self._state.connections
        connections.discard(self)
        self._waiting.discard(self)
        if self._probe is not None:
            self._probe.cancel()
        self._refused = True
        for exchange in (self._current, *self._queue):
            if exchange is not None:
                exchange.leave()
        self._queue.clear()
        self._resume_writers()
        self._parser = None  # it holds this connection

    def eof_received(self) -> bool:
        """Decide whether the connection stays open for answers that are due."""
        if self._refused or self._transport.is_closing():
            return False
        self._ended = True
        if self._last is not None and self._last.arriving and not self._last.complete:
            self._refuse(SHORT_BODY)
            return not self._transport.is_closing()
        if self._current is None:
            return False
        self._probe = self._loop.call_soon(self._probe_client, 0)
        return True

    def pause_writing(self) -> None:
        self.is_full = True
        self._watch_reader()

    def resume_writing(self) -> None:
        self._resume_writers()
        if not self._transport.is_closing():
            self._waiting.unread.discard(self)

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self._received += size
        if self._refused or self._ending:
            self._drop(size)
            return
        if self._current is None:
            self._waiting.idle.discard(self)
        limit = self._limits.max_header_bytes
        if size > limit and self._in_head:
            for at in range(0, size, limit):
                self._feed(data[at : at + limit])
                if self._refused or self._ending:
                    return
        else:
            self._feed(data)
        if self._in_head and self._current is None and self not in self._waiting.silent:
            self._wait_for_next()

    def _feed(self, data: bytes) -> None:
        in_head = self._in_head
        self._piece = len(data)
        rest: bytes | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as exc:
            if not self._refused and not self._ending:
                self._refuse(refusal_of(exc))
        else:
            if self._overhead.fed(len(data)) and not self._refused:
                self._refuse(self._too_large(in_head))
        if rest is not None:  # (Within ``except``, an error in it would seem to come of this one.)
            self._ignore_upgrade(rest)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offers another protocol.

        The parser has stopped after its head and would not read the body, so another one takes
        over. rest: the bytes after the head.
        """
        exchange = self._last
        assert exchange is not None
        self._parser, head = resumed(self, exchange.scope, self._url, self._headers)
        self._headers = exchange.scope["headers"]
        self._parser.feed_data(head)
        if rest:
            self._feed(rest)

    # From the parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer, which is ignored
        if len(self._headers) >= MAX_HEADERS:
            raise too_many_headers(MAX_HEADERS)
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        limit = self._limits.max_header_bytes
        if self._overhead.bytes + self._piece > limit and self._head_size() > limit:
            raise self._too_large(True)
        self._in_head = self._begun = False
        self._overhead.progress()
        self._waiting.silent.discard(self)
        server, client = self._addresses
        scope = read_scope(parser, self._url, headers, self._root_path)
        scope.update(server=server, client=client, state=self._app_state.copy())
        is_new = scope["http_version"] == "1.1"
        found = dict(headers)
        exchange = Exchange(
            self,
            self._direct if FORWARDED.isdisjoint(found) else self._app,
            scope,
            keep_alive=is_new and parser.should_keep_alive(),
            expects_continue=is_new and found.get(b"expect", b"").lower() == b"100-continue",
        )
        self._last = exchange
        if self._current is None:
            self._start(exchange)
        else:
            self._queue.append(exchange)
            self.pause_reading()
            if len(self._queue) > MAX_PIPELINE:
                raise too_many_requests(MAX_PIPELINE)

    def on_body(self, body: bytes) -> None:
        self._overhead.progress(len(body))
        exchange = self._last
        assert exchange is not None
        if exchange.complete:
            self._drop(len(body))
            return
        exchange.add_body(body)
        if exchange.buffered > HIGH_WATER:
            self.pause_reading()

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # its body is read by the next parser
        exchange = self._last
        assert exchange is not None
        self._in_head = True
        self._overhead.progress()
        exchange.end_body()
        if not exchange.keep_alive:
            self._ending = True
        if exchange.complete:
            self._waiting.dropped.discard(self)
            self._wait_for_next()

    # From the exchanges

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        while self.is_full:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    def pause_reading(self) -> None:
        if not self._paused and not self._ended:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._queue:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def on_answered(self, exchange: Exchange) -> None:
        """Begin the next answer after this one, or wait for its request."""
        self._state.total_requests += 1
        self._current = None
        if self._refused or self._transport.is_closing():
            return
        if not exchange.keep_alive:
            for waiting in self._queue:
                waiting.leave()
            self._queue.clear()
            self._close_behind_answer(exchange.arriving)
        elif self._queue:
            self._start(self._queue.popleft())
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._ended:
            self.close()
        else:
            self.resume_reading()
            if exchange.arriving:
                self._seen = self._received
                self._waiting.dropped.add(self, self._loop.time())
            else:
                self._wait_for_next()

    def shutdown(self) -> None:
        """Finish the answer that has begun, and close: the server stops."""
        if self._current is None:
            self.close()
        else:
            self._current.keep_alive = False
            self._ending = not self._current.arriving

    # From the guard

    def give_up_head(self, refusal: Problem) -> None:
        """Refuse a head that is overdue; close if nothing of it came."""
        if not self._begun and not self._overhead.bytes:
            self.close()
        else:
            self._refuse(refusal)

    def close(self) -> None:
        """Close once the client has read everything."""
        self._refused = True
        if not self._transport.is_closing():
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._watch_reader()

    def abort(self) -> None:
        """Close at once."""
        self._refused = True
        self._waiting.discard(self)
        self._state.connections.discard(self)
        self._transport.abort()

    def cut(self, hard: bool) -> None:
        """End an answer that has begun and cannot be finished, so that the client sees it."""
        if hard:
            self.abort()
        else:
            self.close()

    def has_sent(self, least: float) -> bool:
        """Return True if at least ``least`` bytes came since the guard last asked."""
        seen, self._seen = self._seen, self._received
        return self._received - seen >= least

    def has_moved(self) -> bool:
        """Return True if the client has read or sent anything since the guard last asked."""
        unread, self._unread = self._unread, self._transport.get_write_buffer_size()
        return self._unread < unread or self.has_sent(1)

    # Within

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        # uvicorn's server owns these tasks: it waits for them when it stops.
        tasks: set[Any] = self._state.tasks
        running: Awaitable[None]
        running = self._loop.create_task(exchange.run())
        running.add_done_callback(tasks.discard)
        tasks.add(running)

    def _wait_for_next(self) -> None:
        """Wait until the client asks again, or sends the rest of its request."""
        if self._current is None and not self._transport.is_closing():
            begun = self._begun or self._overhead.bytes > 0
            (self._waiting.silent if begun else self._waiting.idle).add(self, self._loop.time())

    def _drop(self, size: int) -> None:
        """Drop unwanted bytes, so that the client goes on to read."""
        self._dropped += size
        most = MAX_LINGER if self._refused or self._ending else self._limits.max_body_bytes
        if self._dropped > most:
            self.abort()

    def _refuse(self, refusal: Problem) -> None:
        """Answer a request that cannot be served, and close; read nothing more of it.

        Requests before it get their answers first.
        """
        faulty = self._last if self._last is not None and self._last.arriving else None
        current = self._current
        if current is not None and current is not faulty:
            self._ending = True
            self._refusal = refusal
            if faulty is not None:
                self._queue.remove(faulty)
            return
        self._refused = True
        self._waiting.discard(self)
        if current is not None:
            current.leave()
            if current.started:  # The answer must not look whole.
                self._transport.abort()
                return
        elif faulty is not None:  # It has its answer already.
            self._close_behind_answer(not self._ended)
            return
        client = self._addresses[1]
        self._guard.on_refusal(client[0] if client else None, refusal)
        body = refusal.encode()
        headers = (*self.default_headers, *refusal.headers)
        extra = b"".join(b"%b: %b\r\n" % header for header in headers)
        self._transport.write(
            b"%bcontent-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n%b\r\n%b"
            % (STATUS_LINES[refusal.status], len(body), extra, body)
        )
        self._close_behind_answer(not self._ended)

    def _close_behind_answer(self, more: bool) -> None:
        """Close after the last answer. more: the client may still be sending.

        Closed at once, a socket with unread bytes resets the connection, and the answer is lost.
        """
        if not more or not self._transport.can_write_eof():
            self.close()
            return
        self._refused = True
        self._dropped = 0
        self.resume_reading()
        self._transport.write_eof()
        self._waiting.closing.add(self, self._loop.time())

    def _head_size(self) -> int:
        """Estimate the bytes of a head that is complete."""
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _too_large(self, in_head: bool) -> Problem:
        limit = self._limits.max_header_bytes
        if not in_head:
            return framing_too_large(limit)
        return head_too_large(limit, is_address=not self._headers and len(self._url) > limit // 2)

    def _probe_client(self, number: int) -> None:
        """Find out whether a client that sends no more still listens (see ``Exchange.probe``)."""
        self._probe = None
        if self._current is None or self._transport.is_closing():
            return
        if self._current.probe() and number < len(PROBES):
            self._probe = self._loop.call_later(PROBES[number], self._probe_client, number + 1)

    def _watch_reader(self) -> None:
        """Require the client to read from now on."""
        self._seen = self._received
        self._unread = self._transport.get_write_buffer_size()
        self._waiting.unread.add(self, self._loop.time())

    def _resume_writers(self) -> None:
        self.is_full = False
        if self._drained is not None:
            self._drained.set()
            self._drained = None


def _address(transport: asyncio.Transport, which: str) -> tuple[str, int] | None:
    found = transport.get_extra_info(which)
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
