"""The pipe between an agent and a worker: its frames, and both of its ends.

A frame is four bytes of length (little endian, of what follows), one byte of kind, and the
payload. asyncio is imported for its types only: alone it would be a third of what a worker imports.
"""

from __future__ import annotations

import functools
import io
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

from jetmap.payload_buffer import LARGE_BYTES, payload_buffer

if TYPE_CHECKING:
    import asyncio
    from asyncio import BufferedProtocol
    from collections.abc import Sequence
else:
    BufferedProtocol = object  # ``_protocol`` adds asyncio's own.

LENGTH = struct.Struct("<I")
HEAD = LENGTH.size + 1  # Bytes before the payload.
READ_AHEAD = 65_536  # Bytes to read at once where no large payload is expected.
MOST = 1 << 30  # Bytes of a payload: beyond, some other program has written into the pipe.
QUIET_SECONDS = 0.025  # Seconds between two looks at the pipe of a dead worker.
LOOKS = 40  # Looks until the pipe is closed, whatever still arrives.

# From agent to worker.
SETUP, CHUNK = b"S", b"C"
ITEMS = b"D"  # Before a chunk whose message does not have them.
BATCH = b"T"  # The chunks of the frames that follow are computed together.
JOINED, LEFT = b"J", b"G"  # A dispatcher shares memory with this worker from now on, or no longer.
GIVEN, DROPPED = b"H", b"Z"  # A constant that later chunks need, or that none needs any more.
# From worker to agent.
READY, FAILED, STALE = b"R", b"F", b"X"
TASK = b"Q"  # The import of a TASKS argument begins (or, without a name, all have ended).
EARLY = b"E"  # Like READY, but the worker is not ready yet: it still imports, or loads.
LOADED = b"O"  # A function that a caller brought has what it needs.
WARMED = b"W"  # A function's first call here, and the seconds it took.
# A module's import begins (or, without a name, has ended), and has failed.
IMPORTING, BROKEN = b"I", b"B"
BAD = b"!"  # Not sent: something that is not a frame has arrived.
# Each chunk is answered with any number of PARTs and one LAST, or with SKIPPED. ENDED stands for a
# LAST that the worker has sent to the dispatcher itself.
PART, LAST, SKIPPED, ENDED = b"P", b"L", b"K", b"N"
VALUES = b"V"  # Before a PART or LAST whose values are large,
REGION = b"A"  # or in shared memory.
UNSHARED = b"U"  # The memory of a JOINED cannot be mapped.

_KINDS = [bytes([byte]) for byte in range(256)]


def frame(kind: bytes, payload: bytes) -> bytes:
    return LENGTH.pack(len(payload) + 1) + kind + payload


class Frames:
    """Cut what arrives into frames. A large payload is read into a buffer of its own.

    Bytes are written into ``buffer()``, and ``on_read`` then takes them in.

    Attributes:
        waiting: The frames that have arrived, to be removed by ``pop``.
    """

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, bytes | io.BytesIO]] = deque()
        self._data = bytearray(READ_AHEAD)
        self._view = memoryview(self._data)
        self._start = self._end = 0  # Of what is not cut yet.
        self._kind = b""  # Of the large frame that arrives,
        self._large = io.BytesIO()  # its payload,
        self._room: memoryview | None = None  # and the part of that which is still missing.

    def has(self, kind: bytes) -> bool:
        """Return whether a frame of this kind waits."""
        return any(kind == each for each, _ in self.waiting)

    def pop(self) -> tuple[bytes, bytes]:
        """Remove the first frame; return its kind and payload."""
        kind, payload = self.waiting.popleft()
        # Only here: while a view of it lives, as in ``on_read``, a buffer would be copied.
        return kind, payload if isinstance(payload, bytes) else payload.getvalue()

    def buffer(self) -> memoryview:
        """Return where to write what arrives; never empty."""
        if self._room is not None:
            return self._room
        have = self._end - self._start
        if not have:
            self._start = self._end = 0
            return self._view
        if len(self._data) - self._end < LARGE_BYTES:
            self._view[:have] = self._view[self._start : self._end]
            self._start, self._end = 0, have
        return self._view[self._end :]

    def on_read(self, count: int) -> None:
        """Process ``count`` bytes that were written into the buffer."""
        if self._room is not None:
            self._room = self._room[count:]
            if len(self._room):
                return
            self._room = None
            self.waiting.append((self._kind, self._large))
            self._large = io.BytesIO()
            return
        self._end = end = self._end + count
        view, start = self._view, self._start
        while (payload := start + HEAD) <= end:
            size = LENGTH.unpack_from(view, start)[0] - 1
            if size > MOST or size < 0:
                # It was not written by the worker; what follows makes no sense, either.
                self.waiting.append((BAD, b""))
                start = end
                break
            kind = _KINDS[view[payload - 1]]
            if payload + size <= end:
                start = payload + size
                self.waiting.append((kind, bytes(view[payload:start])))
                continue
            if size >= LARGE_BYTES:
                self._kind, self._large = kind, payload_buffer(size)
                room, arrived = self._large.getbuffer(), view[payload:end]
                room[: len(arrived)] = arrived
                self._room = room[len(arrived) :]
                start = end
            break
        self._start = start


class BlockingPipe:
    """The worker's end, which may block: a worker has nothing else to do while it waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()

    def send(self, kind: bytes, payload: bytes) -> None:
        if len(payload) < LARGE_BYTES:
            self._sock.sendall(frame(kind, payload))
        else:
            self._sock.sendall(LENGTH.pack(len(payload) + 1) + kind)
            self._sock.sendall(payload)

    def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None if the agent is gone."""
        frames = self._frames
        while not frames.waiting:
            count = self._sock.recv_into(frames.buffer())
            if not count:
                return None
            frames.on_read(count)
        return frames.pop()

    def close(self) -> None:
        self._sock.close()


class AgentPipe(BufferedProtocol):
    """The agent's end, which does not block: frames in both directions.

    Attributes:
        first_at: Time of the first frame that is not a ``TASK``, on the event loop's clock; None
            before it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.first_at: float | None = None
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._has_sent_end = False
        self._has_heard = False  # Data has arrived since the last look.

    @classmethod
    async def open(cls, sock: socket.socket) -> AgentPipe:
        import asyncio

        loop, protocol = asyncio.get_running_loop(), _protocol()
        _, pipe = await loop.create_unix_connection(lambda: protocol(loop), sock=sock)
        return pipe

    @property
    def has_frames(self) -> bool:
        """Return whether a frame waits to be received, or the worker is gone."""
        return bool(self._frames.waiting) or self._closed

    @property
    def is_closed(self) -> bool:
        """Return whether the worker's end is closed; frames may still wait."""
        return self._closed

    def has(self, kind: bytes) -> bool:
        """Return whether a frame of this kind waits to be received."""
        return self._frames.has(kind)

    def send(self, kind: bytes, payload: bytes) -> None:
        """Queue a frame. One to a worker that is dead, or told to end, is dropped.

        The worker's death is reported.
        """
        if (transport := self._writable()) is not None:
            if len(payload) < LARGE_BYTES:
                transport.write(frame(kind, payload))
            else:
                transport.writelines((LENGTH.pack(len(payload) + 1) + kind, payload))

    def send_parts(self, kind: bytes, parts: Sequence[bytes]) -> None:
        """Queue a frame whose payload is in parts."""
        if (transport := self._writable()) is not None:
            size = sum(map(len, parts))
            transport.writelines((LENGTH.pack(size + 1) + kind, *parts))

    def send_end(self) -> None:
        """Queue the end: the worker reads it behind all frames. A second call does nothing."""
        if (transport := self._writable()) is not None:
            self._has_sent_end = True
            transport.write_eof()

    def _writable(self) -> asyncio.Transport | None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._has_sent_end:
            return None
        return transport

    async def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None when the worker's end is closed."""
        while not self._frames.waiting:
            if self._closed:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._frames.pop()

    def finish(self) -> None:
        """Read what a dead worker had sent, then close the pipe.

        A process that the worker forked may hold the other end open for ever.
        """
        self._has_heard = True
        self._look(0, LOOKS)

    def _look(self, quiet: int, left: int) -> None:
        # Two quiet looks: an event loop that was held up may run timers before it reads.
        quiet = 0 if self._has_heard else quiet + 1
        self._has_heard = False
        if quiet >= 2 or not left:
            self.close()
        elif not self._closed:
            self._loop.call_later(QUIET_SECONDS, self._look, quiet, left - 1)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports are none of asyncio's classes.)
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._has_heard = True
        self._frames.on_read(nbytes)
        if self._frames.waiting:
            if self.first_at is None and self._frames.waiting[-1][0] != TASK:
                self.first_at = self._loop.time()
            self._wake()

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def pause_writing(self) -> None:
        """Do nothing: the agent gives a worker only what it has room for."""

    def resume_writing(self) -> None:
        """Do nothing: writing was not paused."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():  # It may have been cancelled.
            waiter.set_result(None)


@functools.cache
def _protocol() -> type[AgentPipe]:
    """Return the pipe as asyncio wants it: it asks only classes of its own for a buffer."""
    import asyncio

    return type("AgentPipe", (AgentPipe, asyncio.BufferedProtocol), {})
