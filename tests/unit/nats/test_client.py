"""The client: messages are cut whatever the fragments, and large payloads are not joined."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
from collections.abc import AsyncIterator
from urllib.parse import urlparse

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from hypotheses import examples
from jetmap.nats.client import LARGE_BYTES, READ_BYTES, Inbound, QuickClient, TcpTransport
from waiting import turns, wait_until

sizes = st.one_of(
    st.integers(0, 40),
    st.integers(LARGE_BYTES - 2, LARGE_BYTES + 2),
    st.integers(READ_BYTES - 40, READ_BYTES + 40),
    st.integers(0, 3 * READ_BYTES),
)
messages = st.tuples(sizes, st.booleans(), st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n"]))
controls = st.sampled_from([b"PING", b"PONG", b"-ERR 'x'", b'INFO {"a": 1}'])
cuts = st.lists(st.one_of(st.integers(1, 70), st.integers(1, READ_BYTES)), min_size=1, max_size=8)


def payload_of(size: int) -> bytes:
    """Return bytes that hold ends of lines, and whose parts all differ."""
    return (b"\r\nPING\r\n%d" % size + bytes(range(251)) * (size // 251 + 1))[:size]


def sent(size: int, has_reply: bool, headers: bytes, number: int) -> bytes:
    reply = b"r.%d " % number if has_reply else b""
    kind, counts = b"MSG", b""
    if headers:
        kind, counts = b"HMSG", b"%d " % len(headers)
    total = len(headers) + size
    line = b"%s s.%d %d %s%s%d\r\n" % (kind, number, number, reply, counts, total)
    return line + headers + payload_of(size) + b"\r\n"


def feed(inbound: Inbound, data: bytes, cuts: list[int]) -> None:
    """Write data as a socket would: at most what fits, and what a cut allows."""
    at = 0
    for cut in itertools.cycle(cuts):
        if at >= len(data):
            return
        buffer = inbound.buffer()
        assert len(buffer)
        count = min(cut, len(buffer), len(data) - at)
        buffer[:count] = data[at : at + count]
        at += count
        inbound.on_read(count)


@examples(150)
@given(st.lists(st.one_of(messages, controls), max_size=8), cuts)
def test_messages_survive_any_fragmentation(
    given_: list[tuple[int, bool, bytes] | bytes], cuts: list[int]
) -> None:
    data = b"+OK\r\n"
    for number, one in enumerate(given_):
        data += one + b"\r\n" if isinstance(one, bytes) else sent(*one, number)
    inbound = Inbound()
    inbound.parse()
    feed(inbound, data, cuts)
    assert len(inbound.found) == len(given_)
    for number, (one, found) in enumerate(zip(given_, inbound.found, strict=True)):
        if isinstance(one, bytes):
            assert found == one
            continue
        size, has_reply, headers = one
        assert not isinstance(found, bytes)
        reply = b"r.%d" % number if has_reply else b""
        payload = found[3]
        assert (*found[:3], found[4]) == (number, b"s.%d" % number, reply, headers)
        assert (payload if isinstance(payload, bytes) else payload.getvalue()) == payload_of(size)
    assert inbound.size == sum(one[0] + len(one[2]) for one in given_ if not isinstance(one, bytes))


def test_a_large_payload_is_not_copied_again() -> None:
    inbound = Inbound()
    inbound.parse()
    size = 8 << 20
    line = b"MSG s 1 %d\r\n" % size
    feed(inbound, line + b"begin", [READ_BYTES])
    rooms = []
    left = size - 5
    while left:
        room = inbound.buffer()
        rooms.append(len(room))
        count = min(len(room), left)
        left -= count
        inbound.on_read(count)
        del room
    assert rooms == [size - 5]
    feed(inbound, b"\r\nPING\r\n", [1])
    message, ping = inbound.found
    assert ping == b"PING"
    payload = message[3]
    assert isinstance(payload, io.BytesIO) and payload.getvalue() is payload.getvalue()


@pytest.mark.parametrize(
    "line", [b"HELLO\r\n", b"MSG s 1\r\n", b"MSG s one 5\r\n", b"HMSG s 1 x 5\r\n", b"\r\n"]
)
def test_nonsense_is_refused(line: bytes) -> None:
    inbound = Inbound()
    inbound.parse()
    with pytest.raises(nats.errors.ProtocolError):
        feed(inbound, line, [len(line)])


def test_lines_are_not_parsed_before_the_first_parse() -> None:
    inbound = Inbound()
    feed(inbound, b"INFO {}\r\nPO", [3])
    assert inbound.line() == b"INFO {}\r\n" and inbound.line() is None
    feed(inbound, b"NG\r\nMSG s 1 1\r\nx", [100])
    assert inbound.line() == b"PONG\r\n"
    inbound.parse()
    feed(inbound, b"\r\n", [2])
    assert [found[3] for found in inbound.found if not isinstance(found, bytes)] == [b"x"]


def test_a_line_longer_than_the_buffer_gets_room() -> None:
    inbound = Inbound()
    info = b"INFO " + b"x" * 3 * READ_BYTES + b"\r\n"
    feed(inbound, info, [READ_BYTES])
    assert inbound.line() == info


class Kept(QuickClient):
    """A client that is connected to a list."""

    @property
    def is_connected(self) -> bool:
        return True

    async def _flush_pending(self, force_flush: bool = False) -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [None, {"Nats-TTL": "5s", "Other": "x"}])
async def test_a_large_payload_is_sent_as_it_is(headers: dict[str, str] | None) -> None:
    client = Kept()
    small, large = b"x" * 10, b"x" * LARGE_BYTES
    commands = []
    for payload in (small, large):
        await client._send_publish("s", "r", payload, len(payload), headers)
        commands.append(client._pending)
        client._pending = []
    assert any(piece is large for piece in commands[1])
    # nats-py's own command, which the small payload took, shows the form.
    line, rest = commands[0][0].split(b"\r\n", 1)
    words = line.split()
    words[-1] = b"%d" % (int(words[-1]) + LARGE_BYTES - 10)
    expected = b" ".join(words) + b"\r\n" + rest.replace(small, large)
    assert b"".join(commands[1]) == expected
    assert client._pending_data_size == sum(len(piece) for c in commands for piece in c)


async def read_on(transport: TcpTransport) -> None:
    while True:
        await transport.parse(await transport.read(0))


class Link:
    """A transport whose server's messages are written by the test: ``7`` is handled directly."""

    def __init__(self) -> None:
        self.client = QuickClient()
        self.transport = TcpTransport(self.client)
        self.socket = self.transport._socket = self.transport._new_socket()
        self.reading: asyncio.Task[None]
        self.got: list[bytes] = []
        self.gates: dict[bytes, asyncio.Event] = {}
        self.client.direct[7], self.client._subs[7] = self.take, None  # type: ignore[assignment]

    async def take(self, message: Msg) -> None:
        if gate := self.gates.get(message.data):
            await gate.wait()
        self.got.append(message.data)

    async def on_control(self, line: bytes) -> None:
        self.got.append(line)

    def arrive(self, *payloads: bytes) -> None:
        """Have messages arrive in one read, or control lines."""
        data = b"".join(
            one + b"\r\n" if one == b"PING" else b"MSG s 7 %d\r\n%b\r\n" % (len(one), one)
            for one in payloads
        )
        self.socket.get_buffer(-1)[: len(data)] = data
        self.socket.buffer_updated(len(data))


@pytest.fixture
async def link(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Link]:
    link = Link()
    monkeypatch.setattr(link.client, "on_control", link.on_control)
    link.reading = asyncio.create_task(read_on(link.transport))
    await turns(3)
    yield link
    link.reading.cancel()


@pytest.mark.anyio
async def test_a_direct_callback_runs_where_its_message_is_read(link: Link) -> None:
    link.arrive(b"1", b"2")
    assert link.got == [b"1", b"2"]


@pytest.mark.anyio
async def test_a_callback_that_waits_holds_up_what_follows_it(link: Link) -> None:
    gate = link.gates[b"2"] = asyncio.Event()
    link.arrive(b"1", b"2", b"3")
    await turns(5)
    link.arrive(b"PING", b"4")
    await turns(5)
    assert link.got == [b"1"]
    gate.set()
    await turns(5)
    assert link.got == [b"1", b"2", b"3", b"PING", b"4"]
    link.arrive(b"5")
    assert link.got[-1] == b"5"


@pytest.mark.anyio
async def test_what_is_not_direct_is_handled_in_its_turn(link: Link) -> None:
    link.arrive(b"1", b"PING", b"2")
    assert link.got == [b"1"]
    await turns(5)
    assert link.got == [b"1", b"PING", b"2"]


@pytest.mark.anyio
async def test_a_callback_is_cancelled_with_the_reader_that_it_waits_in(link: Link) -> None:
    link.gates[b"1"] = asyncio.Event()
    link.arrive(b"1")
    await turns(5)
    with pytest.raises(asyncio.CancelledError):
        link.reading.cancel()
        await link.reading
    assert link.got == []


@pytest.mark.anyio
async def test_reading_pauses_while_messages_wait() -> None:
    client = QuickClient()
    transport = TcpTransport(client)
    received: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(16):
            writer.write(b"MSG s 7 1000000\r\n" + bytes(1_000_000) + b"\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await reader.read()
        writer.close()

    async def take(message: object) -> None:
        received.append(len(message.data))  # type: ignore[attr-defined]

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(20):
        await transport.connect(urlparse(f"nats://127.0.0.1:{port}"), 0, 5)
        client.direct[7], client._subs[7] = take, None  # type: ignore[assignment]
        socket = transport._socket
        assert socket is not None
        socket.inbound.parse()
        await wait_until(lambda: socket._is_paused, "reading pauses")
        assert 0 < len(socket.inbound.found) < 16
        reading = asyncio.create_task(read_on(transport))
        await wait_until(lambda: len(received) == 16, "everything is handled")
        reading.cancel()
        assert received == [1_000_000] * 16 and not socket._is_paused
        transport.close()
        await transport.wait_closed()
        assert transport.at_eof()
    server.close()
    await server.wait_closed()
