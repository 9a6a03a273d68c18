"""The pipe between an agent and a worker: its frames, and both of its ends.

A frame is four bytes of length (little endian, of what follows), one byte of kind, and the
payload. asyncio is imported for its types only: alone it would be a third of what a worker imports.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import asyncio
    from asyncio import Protocol
else:
    Protocol = object  # Event loops only call its methods.

LENGTH = struct.Struct("<I")
HEAD = LENGTH.size + 1  # Bytes before the payload.
READ_AHEAD = 65_536  # Bytes to read at once; with more, each read would map and unmap its memory.
QUIET_SECONDS = 0.025  # Seconds between two looks at the pipe of a dead worker.
LOOKS = 40  # Looks until the pipe is closed, whatever still arrives.

# From agent to worker.
SETUP, CHUNK = b"S", b"C"
# From worker to agent.
READY, FAILED, STALE = b"R", b"F", b"X"
WARMED = b"W"  # A function's first call here, and the seconds it took.
# A module's import begins (or, without a name, has ended), and has failed.
IMPORTING, BROKEN = b"I", b"B"
# Each chunk is answered with any number of PARTs and one LAST, or with SKIPPED.
PART, LAST, SKIPPED = b"P", b"L", b"K"


def frame(kind: bytes, payload: bytes) -> bytes:
    return LENGTH.pack(len(payload) + 1) + kind + payload


class Frames:
    """Cut what arrives into frames. Each byte is copied a bounded number of times."""

    def __init__(self) -> None:
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._parts: list[bytes] = []  # The beginning of an unfinished frame.
        self._missing = 0  # Bytes until more of that frame can be known.

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def next_kind(self) -> bytes | None:
        """The kind of the frame that ``pop`` returns next."""
        return self._frames[0][0] if self._frames else None

    def pop(self) -> tuple[bytes, bytes]:
        """Remove the first frame; return its kind and payload."""
        return self._frames.popleft()

    def feed(self, data: bytes) -> None:
        """Take in bytes that have arrived."""
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = _join(self._parts)
            self._parts = []
        start, size = 0, len(data)
        while size - start >= HEAD:
            end = start + LENGTH.size + LENGTH.unpack_from(data, start)[0]
            if end > size:
                self._missing = end - size
                break
            payload = start + HEAD
            self._frames.append((data[payload - 1 : payload], data[payload:end]))
            start = end
        else:
            self._missing = HEAD - (size - start)
        if start < size:
            self._parts = [data[start:]]


def _join(parts: list[bytes]) -> bytes:
    return b"".join(parts)


class BlockingPipe:
    """The worker's end, which may block: a worker has nothing else to do while it waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()

    def send(self, kind: bytes, payload: bytes) -> None:
        self._sock.sendall(frame(kind, payload))

    def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None if the agent is gone."""
        while not self._frames:
            data = self._sock.recv(READ_AHEAD)
            if not data:
                return None
            self._frames.feed(data)
        return self._frames.pop()

    def close(self) -> None:
        self._sock.close()


class AgentPipe(Protocol):
    """The agent's end, which does not block: frames in both directions.

    Attributes:
        first_at: Time of the first frame, on the event loop's clock; None before it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.first_at: float | None = None
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._has_heard = False  # Data has arrived since the last look.

    @classmethod
    async def open(cls, sock: socket.socket) -> AgentPipe:
        import asyncio

        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(lambda: cls(loop), sock=sock)
        return pipe

    @property
    def has_frames(self) -> bool:
        """Whether a frame waits to be received, or the worker is gone."""
        return bool(self._frames) or self._closed

    @property
    def next_kind(self) -> bytes | None:
        """The kind of the frame that waits to be received."""
        return self._frames.next_kind

    def send(self, kind: bytes, payload: bytes) -> None:
        """Queue a frame. A frame to a dead worker is dropped; its death is reported."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(kind, payload))

    async def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None when the worker's end is closed."""
        while not self._frames:
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

    def data_received(self, data: bytes) -> None:
        self._has_heard = True
        self._frames.feed(data)
        if self._frames:
            if self.first_at is None:
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
