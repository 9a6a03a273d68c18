"""Cut what a NATS server sends into messages and control lines. No I/O."""

from __future__ import annotations

import io
from collections import deque

import nats.errors

from jetmap.payload_buffer import LARGE_BYTES, payload_buffer

# Bytes to read at once where no large payload is expected.
READ_BYTES = 65_536

# A message: its subscription, subject, reply, payload (a buffer if it is large) and headers.
Arrived = tuple[int, bytes, bytes, bytes | io.BytesIO, bytes]
# Its line: subscription, subject, reply, bytes of the headers, all bytes.
MessageHead = tuple[int, bytes, bytes, int, int]


class Inbound:
    """Cut what a server sends into messages and control lines. No I/O.

    Bytes are written into ``buffer()``, and ``on_read`` then takes them in. Until ``parse`` is
    called for the first time, ``line`` returns lines as they are.

    Attributes:
        found: Messages and control lines, in order of arrival.
        size: Bytes of the payloads in ``found``.
        parses: True once ``parse`` was called.
    """

    def __init__(self) -> None:
        self.found: deque[Arrived | bytes] = deque()
        self.size = 0
        self._data = bytearray(READ_BYTES)
        self._view = memoryview(self._data)
        self._start = self._end = 0  # Of what is not parsed yet.
        self.parses = False
        self._head: MessageHead | None = None  # Of the message whose payload has not arrived.
        self._large: io.BytesIO | None = None  # Its payload, if that is large.
        self._room: memoryview | None = None  # The part of that buffer which is still missing.
        self._headers = b""
        self._skip = 0  # Bytes to pass over: the end of a line behind a large payload.

    def buffer(self) -> memoryview:
        """Return where to write what arrives; never empty."""
        if self._room is not None:
            return self._room
        have = self._end - self._start
        if not have:
            self._start = self._end = 0
        elif len(self._data) - self._end < LARGE_BYTES:
            size = len(self._data) if have + LARGE_BYTES <= len(self._data) else 2 * have
            moved = self._data if size == len(self._data) else bytearray(size)
            view = memoryview(moved)
            view[:have] = self._view[self._start : self._end]
            self._data, self._view, self._start, self._end = moved, view, 0, have
        return self._view[self._end :]

    def on_read(self, count: int) -> None:
        """Process ``count`` bytes that were written into the buffer.

        Raises nats.errors.ProtocolError if they make no sense.
        """
        if self._room is None:
            self._end += count
            if self.parses:
                self.parse()
        elif count < len(self._room):
            self._room = self._room[count:]
        else:
            assert self._large is not None and self._head is not None
            sid, subject, reply, _, size = self._head
            self.found.append((sid, subject, reply, self._large, self._headers))
            self.size += size
            self._head = self._large = self._room = None
            self._skip = 2

    def line(self) -> bytes | None:
        """Remove the first line, with its end; None if it has not arrived yet."""
        end = self._data.find(b"\n", self._start, self._end) + 1
        if not end:
            return None
        line = bytes(self._view[self._start : end])
        self._start = end
        return line

    def parse(self) -> None:
        """Parse what has arrived, and from now on what arrives."""
        self.parses = True
        if self._room is not None:
            return
        # Parts of bytes cost less than parts of a view, and a line less than a large payload.
        start = self._start
        data = bytes(self._view[start : self._end])
        have, at, head = len(data), 0, self._head
        if self._skip:
            at = min(self._skip, have)
            self._skip -= at
        while True:
            if head is None:
                stop = data.find(b"\r\n", at)
                if stop < 0:
                    break
                head = self._on_line(data[at:stop])
                at = stop + 2
                continue
            sid, subject, reply, headers, size = head
            end = at + size
            if have >= end + 2:
                body = at + headers
                self.found.append((sid, subject, reply, data[body:end], data[at:body]))
                self.size += size
                at, head = end + 2, None
                continue
            if size - headers >= LARGE_BYTES and headers <= have - at < size:
                self._headers = data[at : at + headers]
                self._large = payload_buffer(size - headers)
                room, arrived = self._large.getbuffer(), data[at + headers :]
                room[: len(arrived)] = arrived
                self._room = room[len(arrived) :]
                at = have
            break
        self._start, self._head = start + at, head

    def _on_line(self, line: bytes) -> MessageHead | None:
        """Return the head of a message, or handle a line that is not one."""
        if line.startswith((b"MSG ", b"HMSG ")):
            words = line.split()
            counts = 1 if words[0] == b"MSG" else 2
            try:
                if not 0 <= (more := len(words) - counts - 3) <= 1:
                    raise ValueError
                return (
                    int(words[2]),
                    words[1],
                    words[3] if more else b"",
                    int(words[-2]) if counts == 2 else 0,
                    int(words[-1]),
                )
            except ValueError:
                raise nats.errors.ProtocolError("nats: malformed MSG") from None
        if line.startswith((b"PING", b"PONG", b"INFO ", b"-ERR")):
            self.found.append(line)
        elif not line.startswith(b"+OK"):
            raise nats.errors.ProtocolError("nats: unknown protocol")
        return None
