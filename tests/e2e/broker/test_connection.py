"""Connection against a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jetmap.errors import BrokerUnreachable
from jetmap.nats.connection import Auth, Connection
from jetmap.nats.server import NatsServer
from waiting import PATIENCE

pytestmark = pytest.mark.anyio
AUTH = Auth(user="me", password='pa"$s\\word')


@pytest.fixture
async def server() -> AsyncIterator[NatsServer]:
    server = NatsServer(user=AUTH.user, password=AUTH.password)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def connection(server: NatsServer) -> AsyncIterator[Connection]:
    connection = await Connection.open([server.url], name="test", auth=AUTH, timeout=PATIENCE)
    try:
        yield connection
    finally:
        await connection.close()


class Received:
    """The messages of a subscription; ``reaches`` waits for a number of them."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self._changed = asyncio.Event()

    async def __call__(self, msg: Any) -> None:
        self.payloads.append(msg.data)
        self._changed.set()

    async def take(self, msg: Any) -> None:
        await self(msg)

    async def reaches(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.payloads) < count:
                self._changed.clear()
                await self._changed.wait()


async def break_protocol(connection: Connection) -> None:
    """Has the server say -ERR, upon which nats-py gives the client up for good."""
    await connection._client._send_command(b"NONSENSE\r\n")
    await connection._client._flush_pending()


@pytest.mark.parametrize("auth", [Auth(user="me", password="wrong"), Auth(), Auth(token="no")])
async def test_wrong_credentials_are_refused_at_once(server: NatsServer, auth: Auth) -> None:
    with pytest.raises(BrokerUnreachable, match="refuses the credentials") as caught:
        await Connection.open([server.url], name="test", auth=auth, timeout=30)
    assert "wrong" not in str(caught.value)
    assert "wrong" not in repr(auth)


async def test_nothing_listens() -> None:
    with pytest.raises(BrokerUnreachable, match="no NATS server answers") as caught:
        await Connection.open(["nats://bob:secret@127.0.0.1:1"], name="test", timeout=0.3)
    assert "secret" not in str(caught.value)


async def test_waits_for_a_server_that_starts_later(server: NatsServer) -> None:
    await server.stop()
    late = NatsServer(port=server.port)
    opening = asyncio.create_task(Connection.open([server.url], name="test", timeout=PATIENCE))
    await late.start()
    try:
        connection = await opening
        assert connection.connected
        await connection.close()
    finally:
        await late.stop()


async def test_a_restarted_server_is_found_again(
    server: NatsServer, connection: Connection
) -> None:
    lost, back, received = asyncio.Event(), asyncio.Event(), Received()

    async def on_lost() -> None:
        lost.set()

    async def on_reconnect() -> None:
        await connection.publish("a", b"from the callback")
        back.set()

    connection.on_lost(on_lost)
    connection.on_reconnect(on_reconnect)
    await connection.subscribe("a", received.take)
    await server.stop()
    async with asyncio.timeout(PATIENCE):
        await lost.wait()
        await connection.publish("a", b"kept meanwhile")
        await server.start()
        await back.wait()
    await connection.publish("a", b"afterwards")
    await received.reaches(3)
    assert set(received.payloads) == {b"from the callback", b"kept meanwhile", b"afterwards"}


async def test_a_client_that_nats_py_gave_up_is_replaced(connection: Connection) -> None:
    back, received = asyncio.Event(), Received()

    async def on_reconnect() -> None:
        back.set()

    connection.on_reconnect(on_reconnect)
    await connection.subscribe("a", received.take)
    gone = await connection.subscribe("b", received.take)
    await gone.unsubscribe()
    for _ in range(2):
        back.clear()
        await break_protocol(connection)
        async with asyncio.timeout(PATIENCE):
            await back.wait()
    await connection.publish("b", b"not this")
    await connection.publish("a", b"this")
    await received.reaches(1)
    assert received.payloads == [b"this"]


async def test_publishing_while_the_buffer_is_full_raises(
    server: NatsServer, connection: Connection
) -> None:
    lost = asyncio.Event()

    async def on_lost() -> None:
        lost.set()

    connection.on_lost(on_lost)
    await server.stop()
    async with asyncio.timeout(PATIENCE):
        await lost.wait()
    with pytest.raises(BrokerUnreachable, match="too much waits"):
        for _ in range(10):
            await connection.publish("a", bytes(2**20))


async def test_failing_callbacks_are_counted_and_end_nothing(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    received = Received()
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    async def fail(msg: Any) -> None:
        await received.take(msg)
        if msg.data == b"raise":
            raise ValueError("on purpose")
        await cancelled

    await connection.subscribe("a", fail)
    await connection.publish("a", b"raise")
    await connection.publish("a", b"cancel")
    await connection.publish("a", b"cancel")
    await received.reaches(3)
    await connection.close()
    assert connection.errors == 3
    assert "on purpose" in caplog.text


async def test_dropped_messages_are_counted(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    release, received = asyncio.Event(), Received()

    async def slow(msg: Any) -> None:
        await release.wait()
        await received.take(msg)

    await connection.subscribe("a", slow, pending_msgs=2)
    for _ in range(10):
        await connection.publish("a", b"x")
    await connection.flush()
    release.set()
    await received.reaches(2)
    assert connection.errors >= 7
    assert caplog.text.count("messages on a dropped") == 1


async def test_close_sends_what_was_published(server: NatsServer, connection: Connection) -> None:
    received = Received()
    await connection.subscribe("a", received.take)
    await connection.flush()
    other = await Connection.open([server.url], name="other", auth=AUTH, timeout=PATIENCE)
    for _ in range(1000):
        await other.publish("a", bytes(100))
    await other.close()
    await other.close()
    await received.reaches(1000)
    with pytest.raises(BrokerUnreachable):
        await other.publish("a", b"")


async def test_cancelled_while_the_buffer_is_full(connection: Connection) -> None:
    """nats-py swallows the cancellation; publish must not."""

    async def flood() -> None:
        while True:
            await connection.publish("a", bytes(900_000))

    task = asyncio.create_task(flood())
    await connection.flush()
    task.cancel()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_moved_servers_are_used_when_the_old_one_is_lost(
    server: NatsServer, connection: Connection
) -> None:
    back = asyncio.Event()

    async def on_reconnect() -> None:
        back.set()

    connection.on_reconnect(on_reconnect)
    other = NatsServer(user=AUTH.user, password=AUTH.password)
    await other.start()
    try:
        connection.move([other.url])
        await server.stop()
        async with asyncio.timeout(PATIENCE):
            await back.wait()
        await connection.flush()
    finally:
        await connection.close()
        await other.stop()


async def test_a_direct_subscription_leaves_nothing_behind(connection: Connection) -> None:
    """Its callback, and the messages of a fetch that it holds, are free when it ends."""
    direct = connection._client.direct
    for _ in range(50):
        subscription = await connection.subscribe("a.subject", Received(), direct=True)
        assert len(direct) == 1
        await subscription.unsubscribe()
        assert not direct
