"""A lean HTTP/1.1 client on raw sockets, so that the client is not what is measured."""

from __future__ import annotations

import asyncio
import io
import re
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

JSON = "application/json"
JSON_LINES = "application/jsonl"
MSGPACK = "application/msgpack"
RECEIVE = 1 << 18
ANSWER_SECONDS = 60  # Seconds without any answer after which a server counts as stuck.

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class BadAnswerError(Exception):
    """Answer that is not a whole ``200``."""


def request(port: int, path: str, body: bytes, *, accept: str = JSON) -> bytes:
    """A whole ``POST`` of JSON."""
    return _post(port, path, JSON, accept, len(body)) + body


def _post(port: int, path: str, media: str, accept: str, size: int) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {media}\r\n"
        f"Accept: {accept}\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode()


def connect(port: int) -> socket.socket:
    """A connection to a server on loopback."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def body_of(answer: bytes | bytearray) -> bytes | None:
    """The body of a whole answer, None while something is missing. Raises BadAnswerError."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    start = end + 4
    head = bytes(answer[: end + 2])
    length = _LENGTH.search(head)
    if length is not None:
        stop = start + int(length[1])
        body = bytes(answer[start:stop]) if len(answer) >= stop else None
    elif _CHUNKED.search(head):
        body = _dechunked(answer, start)
    else:
        raise BadAnswerError(f"neither a length nor chunks: {head!r}")
    if body is not None and head[9:12] != b"200":
        raise BadAnswerError(f"{head[:60]!r} {body[:2000]!r}")
    return body


def _dechunked(answer: bytes | bytearray, at: int) -> bytes | None:
    parts: list[bytes] = []
    while True:
        line = answer.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(answer[at:line], 16)
        at = line + 2
        if len(answer) < at + size + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(bytes(answer[at : at + size]))
        at += size + 2


def exchange(connection: socket.socket, message: bytes) -> bytes:
    """Send a request and return the answer's body."""
    connection.sendall(message)
    answer = bytearray()
    while (body := body_of(answer)) is None:
        received = connection.recv(RECEIVE)
        if not received:
            raise BadAnswerError(f"the server hung up after {bytes(answer[:200])!r}")
        answer += received
    return body


def exchange_large(
    connection: socket.socket, path: str, body: bytes, media: str, answer: bytearray
) -> int:
    """Send a body and read the answer into a buffer, each without a copy of the whole.

    Return the bytes of the answer. Raises BadAnswerError if it is larger than the buffer.
    """
    port = connection.getpeername()[1]
    connection.sendall(_post(port, path, media, media, len(body)))
    connection.sendall(body)
    view, at = memoryview(answer), 0
    with io.BufferedReader(socket.SocketIO(connection, "r"), RECEIVE) as stream:
        head = _head(stream)
        if head[9:12] != b"200":
            raise BadAnswerError(f"{head!r} {stream.read1(2000)!r}")
        length = _LENGTH.search(head)
        while size := int(length[1]) if length else int(stream.readline(), 16):
            if size > len(answer) - at:
                raise BadAnswerError(f"the answer has over {len(answer)} bytes")
            got = stream.readinto(view[at : at + size])
            if got < size:
                raise BadAnswerError(f"the server hung up after {at + got} bytes")
            at += size
            if length:
                return at
            stream.readline()
        stream.readline()
    return at


@dataclass
class Load:
    """Counts of a load test. latencies: seconds of each request."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


def hammer(port: int, message: bytes, expected: bytes, connections: int, seconds: float) -> Load:
    """Keep ``connections`` connections busy for ``seconds``, each with one request at a time.

    Then wait for the answers that are due, whose time counts too: a server that divides its cores
    among all requests ends many at once.

    expected: the body of each answer, without white space. Raises BadAnswerError.
    """
    sockets = {c.fileno(): c for c in (connect(port) for _ in range(connections))}
    poll = select.epoll()
    load, answers, sent = Load(), {fd: bytearray() for fd in sockets}, dict.fromkeys(sockets, 0.0)
    try:
        began = perf_counter()
        for fd, connection in sockets.items():
            poll.register(fd, select.EPOLLIN)
            sent[fd] = perf_counter()
            connection.sendall(message)
        waiting = len(sockets)
        while waiting:
            if not (ready := poll.poll(ANSWER_SECONDS)):
                raise BadAnswerError(f"{waiting} requests had no answer in {ANSWER_SECONDS} s")
            for fd, _ in ready:
                answer = answers[fd]
                received = sockets[fd].recv(RECEIVE)
                if not received:
                    raise BadAnswerError(f"the server hung up after {bytes(answer[:200])!r}")
                answer += received
                body = body_of(answer)
                if body is None:
                    continue
                if body.replace(b" ", b"") != expected:
                    raise BadAnswerError(f"{body[:200]!r} instead of {expected[:200]!r}")
                now = perf_counter()
                load.latencies.append(now - sent[fd])
                sent[fd] = now
                answer.clear()
                if now < began + seconds:
                    sockets[fd].sendall(message)
                else:
                    waiting -= 1
        load.seconds = perf_counter() - began
    finally:
        poll.close()
        for connection in sockets.values():
            connection.close()
    return load


@dataclass(frozen=True)
class Answer:
    """headers: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connections:
    """Kept-alive connections of an event loop, one request at a time each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    async def open(cls, port: int, count: int) -> Connections:
        opened = cls(port)
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened._writers.append(writer)
            opened._idle.put_nowait((reader, writer))
        return opened

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request with a JSON body. Raises BadAnswerError unless it succeeds."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        if body:
            head += f"Content-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
        reader, writer = await self._idle.get()
        try:
            writer.write(head.encode() + b"\r\n" + body)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            pairs = (line.split(":", 1) for line in lines)
            headers = {name.lower(): value.strip() for name, value in pairs}
            content = await reader.readexactly(int(headers.get("content-length", 0)))
        finally:
            self._idle.put_nowait((reader, writer))
        status = int(first.split()[1])
        if not 200 <= status < 300:
            raise BadAnswerError(f"{first} {content[:2000]!r}")
        return Answer(status, headers, content)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def send_lines(connection: socket.socket, path: str, parts: Iterator[bytes]) -> None:
    """Post JSON lines as they come, without a length; ask for JSON lines back."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{connection.getpeername()[1]}\r\n"
        f"Content-Type: {JSON_LINES}\r\nAccept: {JSON_LINES}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    connection.sendall(head.encode())
    for part in parts:
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    connection.sendall(b"0\r\n\r\n")


def receive_chunks(connection: socket.socket) -> Iterator[bytes]:
    """Yield the body of a chunked answer, piece by piece. Raises BadAnswerError."""
    with io.BufferedReader(socket.SocketIO(connection, "r"), RECEIVE) as stream:
        head = _head(stream)
        if head[9:12] != b"200" or not _CHUNKED.search(head):
            raise BadAnswerError(f"{head!r} {stream.read(2000)!r}")
        while size := int(stream.readline(), 16):
            yield stream.read(size)
            stream.readline()


def _head(stream: io.BufferedReader[socket.SocketIO]) -> bytes:
    lines: list[bytes] = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join(lines)
