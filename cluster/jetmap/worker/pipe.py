"""The frames on the pipe between an agent and a worker.

A frame is four bytes of length (little endian, of what follows), one byte of kind, and the
payload. Both ends are here; the agent's end does not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import cast

_LENGTH = struct.Struct("<I")
_READ_AHEAD = 65_536

# agent to worker
SETUP, CHUNK = b"S", b"C"
# worker to agent
READY, FAILED, PART, LAST, STALE = b"R", b"F", b"P", b"L", b"X"


def frame(kind: bytes, payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload) + 1) + kind + payload


class BlockingPipe:
    """The worker's end: it has nothing else to do while it waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ahead = b""

    def send(self, kind: bytes, payload: bytes) -> None:
        self._sock.sendall(frame(kind, payload))

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next frame, or None when the agent is gone."""
        head = self._take(4)
        body = self._take(_LENGTH.unpack(head)[0]) if head else b""
        return (body[:1], body[1:]) if body else None

    def _take(self, size: int) -> bytes:
        """``size`` bytes, or none at the end. Reads ahead: small chunks come several at once."""
        data = self._ahead
        if len(data) < size:
            parts = [data]
            missing = size - len(data)
            while missing > 0:
                part = self._sock.recv(max(missing, _READ_AHEAD))
                if not part:
                    return b""
                parts.append(part)
                missing -= len(part)
            data = b"".join(parts)
        self._ahead = data[size:]
        return data[:size]


class AgentPipe(asyncio.Protocol):
    """The agent's end."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, sock: socket.socket) -> AgentPipe:
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(cls, sock=sock)
        return pipe

    def send(self, kind: bytes, payload: bytes) -> None:
        """Queues a frame; a frame to a dead worker is dropped (its death is reported)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(kind, payload))

    async def receive(self) -> tuple[bytes, bytes] | None:
        """The next frame, or None when the worker's end is closed."""
        while not self._frames:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._frames.popleft()

    @property
    def has_frames(self) -> bool:
        """Whether the worker has said something that was not received yet, or is gone."""
        return bool(self._frames) or self._closed

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports are none of asyncio's classes.)
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
        start = 0
        while len(data) - start >= 4:
            end = start + 4 + _LENGTH.unpack_from(data, start)[0]
            if len(data) < end:
                break
            self._frames.append((data[start + 4 : start + 5], data[start + 5 : end]))
            start = end
        self._buffer = bytearray(data[start:])
        if self._frames:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                self._waiter.set_result(None)
            self._waiter = None
