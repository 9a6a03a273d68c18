"""The client: large payloads are sent unjoined, and callbacks run where messages are read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlparse

import pytest
from nats.aio.msg import Msg

from jetmap.nats.client import QuickClient, TcpTransport
from jetmap.nats.inbound import LARGE_BYTES
from waiting import turns, wait_until


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


@pytest.mark.anyio
async def test_a_ping_goes_out_behind_what_was_published_and_once() -> None:
    client = Kept()
    await client._send_publish("s", "", b"x", 1, None)
    await client._send_ping()
    await client._send_publish("s", "", b"y", 1, None)
    sent = b"".join(client._pending)
    assert sent == b"PUB s  1\r\nx\r\nPING\r\nPUB s  1\r\ny\r\n"
    assert client._pending_data_size == len(sent) and len(client._pongs) == 1


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
async def test_messages_are_skipped_where_they_are_read_and_in_their_turn(link: Link) -> None:
    link.client.skips[7] = lambda subject, payload: (subject, payload) == (b"s", b"old")
    link.arrive(b"old", b"1", b"old")
    assert link.got == [b"1"]
    link.arrive(b"PING", b"old", b"2")
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
