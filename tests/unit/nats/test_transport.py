"""The transport: callbacks run where messages are read, in their order, and reading pauses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlparse

import pytest

from jetmap.nats import transport as transport_module
from jetmap.nats.transport import TcpTransport
from waiting import PATIENCE, turns, wait_until

pytestmark = pytest.mark.anyio


class Handler:
    """A client that handles messages of subscription 7 directly, as ``take`` does."""

    def __init__(self) -> None:
        self.direct: dict[int, Any] = {7: self.take}
        self.skips: dict[int, Any] = {}
        self.got: list[bytes] = []
        self.gates: dict[bytes, asyncio.Event] = {}

    async def take(self, payload: bytes) -> None:
        if gate := self.gates.get(payload):
            await gate.wait()
        self.got.append(payload)

    async def on_control(self, line: bytes) -> None:
        self.got.append(line)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        await self.direct[sid](data)


async def read_on(transport: TcpTransport) -> None:
    while True:
        await transport.parse(await transport.read(0))


class Link:
    """A transport whose server's messages are written by the test."""

    def __init__(self) -> None:
        self.handler = Handler()
        self.transport = TcpTransport(self.handler)
        self.socket = self.transport._socket = self.transport._new_socket()
        self.reading: asyncio.Task[None]

    @property
    def got(self) -> list[bytes]:
        return self.handler.got

    def arrive(self, *payloads: bytes) -> None:
        """Have messages arrive in one read, or control lines."""
        data = b"".join(
            one + b"\r\n" if one == b"PING" else b"MSG s 7 %d\r\n%b\r\n" % (len(one), one)
            for one in payloads
        )
        self.socket.get_buffer(-1)[: len(data)] = data
        self.socket.buffer_updated(len(data))


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    link = Link()
    link.reading = asyncio.create_task(read_on(link.transport))
    await turns(3)
    yield link
    link.reading.cancel()


async def test_a_direct_callback_runs_where_its_message_is_read(link: Link) -> None:
    link.arrive(b"1", b"2")
    assert link.got == [b"1", b"2"]


async def test_a_callback_that_waits_holds_up_what_follows_it(link: Link) -> None:
    gate = link.handler.gates[b"2"] = asyncio.Event()
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


async def test_what_is_not_direct_is_handled_in_its_turn(link: Link) -> None:
    link.arrive(b"1", b"PING", b"2")
    assert link.got == [b"1"]
    await turns(5)
    assert link.got == [b"1", b"PING", b"2"]


async def test_messages_are_skipped_where_they_are_read_and_in_their_turn(link: Link) -> None:
    link.handler.skips[7] = lambda subject, payload: (subject, payload) == (b"s", b"old")
    link.arrive(b"old", b"1", b"old")
    assert link.got == [b"1"]
    link.arrive(b"PING", b"old", b"2")
    await turns(5)
    assert link.got == [b"1", b"PING", b"2"]


class Reading:
    """The event loop's transport, as far as it is read from."""

    def __init__(self) -> None:
        self.paused = False
        self.written: list[bytes] = []

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.written += parts


@pytest.fixture
def reading(link: Link, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Return a socket that says whether it is read, of a link where whatever comes is fast."""
    monkeypatch.setattr(transport_module, "GATHER_SECONDS", 1e6)
    found: Any = Reading()
    link.socket.transport, link.socket._skipped_at = found, -1e9
    return cast("Reading", found)


async def lose(link: Link) -> None:
    """Lose the connection of a link whose reader would read on for ever, without a turn for all."""
    link.reading.cancel()
    await turns(3)
    link.socket.connection_lost(None)


async def test_messages_gather_while_nothing_follows_from_what_comes(
    link: Link, reading: Reading
) -> None:
    link.handler.skips[7] = lambda subject, payload: payload == b"old"
    link.arrive(b"old")
    assert not reading.paused, "one alone is nothing fast"
    link.arrive(b"old", b"1")
    assert not reading.paused and link.got == [b"1"], "somebody may wait for the next one"
    link.arrive(b"old", b"old")
    assert reading.paused
    link.transport.writelines([b"PUB a 0", b""])
    assert not reading.paused, "an answer may come"
    link.arrive(b"old")
    assert reading.paused
    link.socket.read_on()  # As the timer does.
    assert not reading.paused and reading.written == [b"PUB a 0", b""]
    link.arrive(b"old")
    await lose(link)
    assert link.socket.gathering is None or link.socket.gathering.cancelled()


async def test_what_has_gathered_is_read_to_its_end(link: Link, reading: Reading) -> None:
    """Agents seemed silent where more had gathered than one read takes."""
    link.handler.skips[7] = lambda subject, payload: True
    for _ in range(3):
        room = len(link.socket.get_buffer(-1))
        link.arrive(bytes(room - len(b"MSG s 7 65000\r\n\r\n")))
        assert not reading.paused, "more may have arrived already"
    link.arrive(b"the last")
    assert reading.paused
    await lose(link)


async def test_a_callback_is_cancelled_with_the_reader_that_it_waits_in(link: Link) -> None:
    link.handler.gates[b"1"] = asyncio.Event()
    link.arrive(b"1")
    await turns(5)
    with pytest.raises(asyncio.CancelledError):
        link.reading.cancel()
        await link.reading
    assert link.got == []


async def test_reading_pauses_while_messages_wait() -> None:
    handler = Handler()
    transport = TcpTransport(handler)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(16):
            writer.write(b"MSG s 7 1000000\r\n" + bytes(1_000_000) + b"\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(PATIENCE):
        await transport.connect(urlparse(f"nats://127.0.0.1:{port}"), 0, 5)
        socket = transport._socket
        assert socket is not None
        socket.inbound.parse()
        await wait_until(lambda: socket._is_paused, "reading pauses")
        assert 0 < len(socket.inbound.found) < 16
        reading = asyncio.create_task(read_on(transport))
        await wait_until(lambda: len(handler.got) == 16, "everything is handled")
        reading.cancel()
        assert [len(payload) for payload in handler.got] == [
            1_000_000
        ] * 16 and not socket._is_paused
        transport.close()
        await transport.wait_closed()
        assert transport.at_eof()
    server.close()
    await server.wait_closed()
