"""The agent's end of the pipe to a worker; ``wire/frames.py`` has the frames."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import cast

from jetmap.wire.frames import LENGTH, frame

QUIET_SECONDS = 0.025  # Seconds between two looks at the pipe of a dead worker.
LOOKS = 40  # Looks until the pipe is closed, whatever still arrives.


class AgentPipe(asyncio.Protocol):
    """Frames in both directions, without blocking."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._heard = False  # Data has arrived since the last look.
        self.first_at: float | None = None  # Time of the first frame, on the loop's clock.

    @classmethod
    async def open(cls, sock: socket.socket) -> AgentPipe:
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(cls, sock=sock)
        return pipe

    def send(self, kind: bytes, payload: bytes) -> None:
        """Queue a frame. A frame to a dead worker is dropped; its death is reported."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(kind, payload))

    async def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None when the worker's end is closed."""
        while not self._frames:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._frames.popleft()

    @property
    def has_frames(self) -> bool:
        """Whether a frame waits to be received, or the worker is gone."""
        return bool(self._frames) or self._closed

    @property
    def next_kind(self) -> bytes | None:
        """The kind of the frame that waits to be received."""
        return self._frames[0][0] if self._frames else None

    def finish(self) -> None:
        """Read what a dead worker had sent, then close the pipe.

        A process that the worker forked may hold the other end open for ever.
        """
        self._heard = True
        self._look(0, LOOKS)

    def _look(self, quiet: int, left: int) -> None:
        # Two quiet looks: an event loop that was held up may run timers before it reads.
        quiet = 0 if self._heard else quiet + 1
        self._heard = False
        if quiet >= 2 or not left:
            self.close()
        elif not self._closed:
            loop = asyncio.get_running_loop()
            loop.call_later(QUIET_SECONDS, self._look, quiet, left - 1)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports are none of asyncio's classes.)
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
        start = 0
        while len(data) - start >= 4:
            end = start + 4 + LENGTH.unpack_from(data, start)[0]
            if len(data) < end:
                break
            self._frames.append((data[start + 4 : start + 5], data[start + 5 : end]))
            start = end
        self._buffer = bytearray(data[start:])
        if self._frames:
            if self.first_at is None:
                self.first_at = asyncio.get_running_loop().time()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                self._waiter.set_result(None)
            self._waiter = None
