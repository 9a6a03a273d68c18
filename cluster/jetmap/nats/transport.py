"""The socket below nats-py's client, with a shortcut from it to a callback.

A large payload is read into a buffer of its own, and messages for callbacks that ask for it are
handled where they are read, without waking a task: see decisions 0213 and 0310.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast
from urllib.parse import ParseResult

import nats.errors
from nats.aio.transport import Transport

from jetmap.background import started

from .broker import Skip
from .inbound import Inbound

# Bytes of messages that may wait for their callbacks before reading pauses.
WAITING_BYTES = 1 << 20
# Seconds for which messages gather before they are read, while all that comes is skipped.
GATHER_SECONDS = 0.1


class MessageHandler(Protocol):
    """The client, as its transport sees it; ``client.py`` describes the attributes."""

    direct: dict[int, Any]
    skips: dict[int, Skip]

    async def on_control(self, line: bytes) -> None: ...
    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None: ...


class Socket(asyncio.BufferedProtocol):
    """The event loop's side of one connection: what was read, and whether it takes more.

    handle_now: handles what has arrived; returns False if a task has to go on with it.
    """

    def __init__(self, handle_now: Callable[[], bool]) -> None:
        self.transport: asyncio.Transport | None = None
        self.inbound = Inbound()
        self._handle_now = handle_now
        self.is_lost = False
        self.is_closed = asyncio.get_running_loop().create_future()
        self._error: Exception | None = None
        self._is_paused = False  # Reading waits for callbacks.
        self.gathering: asyncio.TimerHandle | None = None
        self._skipped_at = -GATHER_SECONDS  # When all that was read had been skipped.
        self._room = 0  # Bytes of the buffer that was given out last.
        self._has_more = False  # The last read filled it: more may have arrived already.
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    async def read(self) -> None:
        """Wait until something has arrived, or the connection is lost.

        Raises OSError or nats.errors.ProtocolError, once everything before the error was handled.
        """
        if self._error is not None:
            raise self._error
        if self.is_lost:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def drain(self) -> None:
        """Wait until the socket takes more. Raises OSError if the connection is lost."""
        if self._error is not None:
            raise self._error
        if self.is_lost:
            raise ConnectionResetError("the connection to the server is lost")
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def on_handled(self) -> None:
        """Read on: everything that had arrived has been handled."""
        self.inbound.size = 0
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()

    def on_skipped(self) -> None:
        """Let messages gather for a moment, if they come fast and nothing follows from them.

        Waking the event loop for each of a thousand agents costs more than what they say. What has
        gathered is read to its end first: it may be more than a read takes.
        """
        loop = asyncio.get_running_loop()
        before, self._skipped_at = self._skipped_at, loop.time()
        is_fast = self._skipped_at - before < 2 * GATHER_SECONDS
        if self._has_more or not is_fast:
            return
        if self.gathering is None and self.transport is not None:
            self.transport.pause_reading()
            self.gathering = loop.call_later(GATHER_SECONDS, self.read_on)

    def read_on(self) -> None:
        """Read what has gathered. An answer may come to what is written now."""
        if self.gathering is None:
            return
        self.gathering.cancel()
        self.gathering = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self.inbound.buffer()
        self._room = len(buffer)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._has_more = nbytes == self._room
        try:
            self.inbound.on_read(nbytes)
        except nats.errors.ProtocolError as error:
            self._error = error
        if self.inbound.size > WAITING_BYTES and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()
        is_waiting = self._waiter is not None and not self._waiter.done()
        if is_waiting and self.inbound.parses and self._error is None and self._handle_now():
            return
        self._wake()

    def eof_received(self) -> bool:
        self.is_lost = True
        self._wake()
        # The client closes the transport; one with TLS closes itself, and says so if asked not to.
        return self.transport is not None and not self.transport.get_extra_info("sslcontext")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._error = self._error or exc
        if self.gathering is not None:
            self.gathering.cancel()
        self._wake()
        self.resume_writing()
        if not self.is_closed.done():
            self.is_closed.set_result(None)

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TcpTransport(Transport):
    """A TCP connection as nats-py's client wants it, which parses what it reads.

    It is also the client's parser: what ``read`` has found, ``parse`` handles.
    """

    def __init__(self, client: MessageHandler) -> None:
        self._client = client
        self._socket: Socket | None = None
        self._begun: Awaitable[None] | None = None  # A callback that waits for something.

    def _new_socket(self) -> Socket:
        return Socket(self._handle_now)

    @property
    def _open(self) -> Socket:
        assert self._socket is not None, "not connected yet"
        return self._socket

    @property
    def _writer(self) -> asyncio.Transport:
        transport = self._open.transport
        assert transport is not None
        return transport

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(connect_timeout):
            _, self._socket = await loop.create_connection(
                self._new_socket, cast(str, uri.hostname), cast(int, uri.port)
            )

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        name = uri if isinstance(uri, str) else uri.hostname
        loop, plain, secure = asyncio.get_running_loop(), self._open, self._new_socket()
        try:
            async with asyncio.timeout(connect_timeout):
                secure.transport = await loop.start_tls(
                    self._writer, secure, ssl_context, server_hostname=name
                )
        except BaseException:
            plain.connection_lost(None)  # It would not be called.
            raise
        self._socket = secure

    def write(self, payload: bytes) -> None:
        socket = self._socket
        assert socket is not None and socket.transport is not None
        socket.transport.write(payload)
        if socket.gathering is not None:
            socket.read_on()

    def writelines(self, payload: Sequence[bytes]) -> None:
        socket = self._socket
        assert socket is not None and socket.transport is not None
        socket.transport.writelines(payload)
        if socket.gathering is not None:
            socket.read_on()

    async def drain(self) -> None:
        await self._open.drain()

    async def readline(self) -> bytes:
        socket = self._open
        while (line := socket.inbound.line()) is None:
            if socket.is_lost:
                return b""
            await socket.read()
        return line

    async def read(self, buffer_size: int) -> bytes:
        socket = self._open
        socket.inbound.parse()
        if not socket.inbound.found:
            await socket.read()
        return b""

    async def parse(self, data: bytes) -> None:
        """Handle what has arrived."""
        socket, client = self._open, self._client
        if self._begun is not None:
            begun, self._begun = self._begun, None
            await begun
        found = socket.inbound.found
        while found:
            one = found.popleft()
            if isinstance(one, bytes):
                await client.on_control(one)
                continue
            sid, subject, reply, payload, headers = one
            if not isinstance(payload, bytes):
                payload = payload.getvalue()
            if sid in client.skips and client.skips[sid](subject, payload):
                continue
            await client._process_msg(sid, subject, reply, payload, headers)
        socket.on_handled()

    def _handle_now(self) -> bool:
        """Run the callbacks of what has arrived, where the reader may, without waking its task.

        Returns False at the first message that is not for such a callback, or whose callback has
        to wait for something. ``parse`` then goes on from there.
        """
        socket, client = self._open, self._client
        found = socket.inbound.found
        only_skipped = bool(found)
        while found:
            one = found[0]
            if isinstance(one, bytes) or one[0] not in client.direct:
                return False
            found.popleft()
            sid, subject, reply, payload, headers = one
            if not isinstance(payload, bytes):
                payload = payload.getvalue()
            if sid in client.skips and client.skips[sid](subject, payload):
                continue
            only_skipped = False
            self._begun = started(client._process_msg(sid, subject, reply, payload, headers))
            if self._begun is not None:
                return False
        socket.on_handled()
        if only_skipped:
            socket.on_skipped()
        return True

    def reset(self) -> None:
        """Drop what has arrived on a connection that is given up."""
        if self._socket is not None:
            self._socket.inbound.found.clear()

    def close(self) -> None:
        if self._socket is not None:
            self._writer.close()

    def abort(self) -> None:
        """Close the socket at once, whatever waits to be sent."""
        if self._socket is not None:
            self._writer.abort()

    async def wait_closed(self) -> None:
        if self._socket is not None:
            await asyncio.shield(self._socket.is_closed)

    def at_eof(self) -> bool:
        return self._socket is None or (self._socket.is_lost and not self._socket.inbound.found)

    def __bool__(self) -> bool:
        return self._socket is not None
