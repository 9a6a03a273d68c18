"""The frames on the pipe between an agent and a worker.

A frame is four bytes of length (little endian, of what follows), one byte of kind, and the
payload. This is the worker's end. The agent's, which does not block, is ``agent/worker_pipe.py``:
asyncio alone would be a third of what a worker imports.
"""

from __future__ import annotations

import socket
import struct

LENGTH = struct.Struct("<I")
_READ_AHEAD = 65_536

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


class BlockingPipe:
    """The worker's end, which may block: a worker has nothing else to do while it waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ahead = b""

    def send(self, kind: bytes, payload: bytes) -> None:
        self._sock.sendall(frame(kind, payload))

    def close(self) -> None:
        self._sock.close()

    def receive(self) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None if the agent is gone."""
        head = self._take(4)
        body = self._take(LENGTH.unpack(head)[0]) if head else b""
        return (body[:1], body[1:]) if body else None

    def _take(self, size: int) -> bytes:
        """Read ``size`` bytes, or none at the end; read ahead, as small chunks come in groups."""
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
