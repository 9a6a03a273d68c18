"""A connection whose client is lost, closed and replaced, without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest

from jetmap.errors import BrokerUnreachable, LimitExceeded
from jetmap.nats import connection as module
from jetmap.nats import dialing as dialing_module
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection
from jetmap.nats.errors import RefusedError
from waiting import wait_until

pytestmark = pytest.mark.anyio


class Inner:
    pending_msgs = 0

    def __init__(self, subject: str, call: Any) -> None:
        self._id = id(self)
        self.subject = subject
        self.call = call

    async def unsubscribe(self) -> None: ...


class Client:
    """A client as dialing makes it. raising: what a publish raises."""

    max_payload = 1000
    pending_data_size = 0

    def __init__(self) -> None:
        self.is_connected = True
        self.direct: dict[int, Any] = {}
        self.skips: dict[int, Any] = {}
        self.options: dict[str, Any] = {}
        self.subscribed: list[Inner] = []
        self.published: list[tuple[str, bytes]] = []
        self.raising: Exception | None = None
        self.pool: list[str] = []
        self._pending: list[bytes] = []
        self._pending_data_size = 0
        self._server_info = {"version": "2.12.0", "server_name": "s"}

    async def subscribe(self, subject: str, *, cb: Any, **options: Any) -> Inner:
        self.subscribed.append(Inner(subject, cb))
        return self.subscribed[-1]

    def publish_soon(self, subject: str, payload: bytes, reply: str) -> bool:
        return False

    async def publish(self, subject: str, payload: bytes, reply: str, headers: Any) -> None:
        if self.raising is not None:
            raise self.raising
        self.published.append((subject, payload))

    async def flush(self, timeout: float) -> None: ...

    async def stop_reconnecting(self) -> None: ...

    async def close(self) -> None:
        self.is_connected = False

    def abort(self) -> None:
        pass

    def set_server_pool(self, servers: list[str]) -> None:
        self.pool = servers


class Dialing:
    """A dialer that fails with these errors first."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.errors: list[Exception] = []
        self.servers: list[list[str]] = []
        self.auths: list[Auth] = []

    async def __call__(self, servers: list[str], *, auth: Auth, **options: Any) -> Client:
        self.servers.append(list(servers))
        self.auths.append(auth)
        if self.errors:
            raise self.errors.pop(0)
        self.clients.append(Client())
        return self.clients[-1]


@pytest.fixture
def dialing(monkeypatch: pytest.MonkeyPatch) -> Dialing:
    made = Dialing()
    monkeypatch.setattr(module, "dial", made)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(dialing_module, "RETRY_SECONDS", 0.001)
    return made


async def opened(timeout: float = 5) -> Connection:
    return await Connection.open(["nats://u:secret@h:1"], name="n", timeout=timeout)


async def test_it_is_tried_until_it_works_or_never_will(dialing: Dialing) -> None:
    dialing.errors = [OSError("no"), nats.errors.Error("no")]
    connection = await opened()
    assert connection.connected and len(dialing.servers) == 3
    assert (connection.server_name, connection.max_payload, connection.room) == ("s", 1000, 500)
    dialing.errors = [RefusedError("the credentials are refused")]
    with pytest.raises(BrokerUnreachable, match="credentials"):
        await opened()
    dialing.errors = [OSError("nobody listens")] * 100
    with pytest.raises(BrokerUnreachable, match=r"at nats://h:1 \(nobody listens\)"):
        await opened(0.0)
    await connection.close()
    await connection.close()


async def test_a_closed_client_is_replaced_with_its_subscriptions(dialing: Dialing) -> None:
    connection = await opened()
    events: list[str] = []

    async def on_lost() -> None:
        events.append("lost")

    async def on_back() -> None:
        events.append("back")
        raise ValueError("a callback that fails ends nothing")

    connection.on_lost(on_lost)
    connection.on_reconnect(on_back)
    kept = await connection.subscribe("kept", print)
    ended = await connection.subscribe("ended", print)
    await ended.unsubscribe()
    first: Any = connection._client
    first.is_connected = False
    await connection.client_lost(first)
    dialing.errors = [OSError("still away"), RefusedError("odd")]
    await connection.client_closed(first)
    await wait_until(lambda: events == ["lost", "back"], "it is back")
    assert connection._client is dialing.clients[-1] is not first
    assert [inner.subject for inner in dialing.clients[-1].subscribed] == [kept.subject]
    assert connection.errors == 1
    # A client that was replaced has nothing more to say.
    await connection.client_lost(first)
    await connection.client_closed(first)
    await asyncio.sleep(0)
    assert events == ["lost", "back"] and len(dialing.clients) == 2
    await connection.close()


async def test_moving(dialing: Dialing) -> None:
    connection = await opened()
    first: Any = connection._client
    connection.move(["nats://other:1"])
    assert first.pool == ["nats://other:1"] and first.is_connected
    # Other credentials need another client, at once.
    connection.move(["nats://third:1"], Auth(user="v"))
    await wait_until(lambda: not first.is_connected, "the old client is closed")
    await connection.client_closed(first)
    await wait_until(lambda: connection._client is not first, "there is another")
    assert dialing.servers[-1] == ["nats://third:1"] and dialing.auths[-1].user == "v"
    await connection.close()


async def test_what_cannot_be_published(dialing: Dialing) -> None:
    connection = await opened()
    client: Any = connection._client
    await connection.publish("a", b"x")
    client.raising = nats.errors.MaxPayloadError()
    with pytest.raises(LimitExceeded, match="limit of 1000"):
        await connection.publish("a", b"x" * 1001)
    client.raising = nats.errors.OutboundBufferLimitError()
    with pytest.raises(BrokerUnreachable, match="too much waits"):
        await connection.publish("a", b"x")
    assert client.published == [("a", b"x")]
    await connection.close()


async def test_a_callback_that_fails_or_is_cancelled_is_counted(dialing: Dialing) -> None:
    connection = await opened()

    async def fail(message: Any) -> None:
        raise asyncio.CancelledError if message == "cancelled" else ValueError(message)

    await connection.subscribe("a", fail)
    (inner,) = dialing.clients[0].subscribed
    for message in ("one", "cancelled"):
        await inner.call(message)
    assert connection.errors == 2
    await connection.client_failed(connection._client, ValueError("of the client"))
    assert connection.errors == 3
    await connection.close()
