"""A broker in this process, for tests: NATS subjects and the part of JetStream that jetmap uses.

    broker = MemoryBroker()
    connection = broker.connect("caller")

Connections of one `MemoryBroker` see each other as if a nats-server stood between them: messages
are delivered later, never within ``publish``; what is published while a connection is lost waits
for it; a pull, a lease or a TTL ends when the broker's clock says so. Pass a `ManualClock` to turn
the time by hand, and a ``network`` to lose, double, delay or reorder messages on their way.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, TooLarge

from .answers import checked
from .broker import Callback, OnMessage, Skip
from .clock import Clock, LoopClock
from .errors import NoResponders
from .memory_jetstream import MemoryJetStream, MemoryMessage
from .memory_stream import matches

logger = logging.getLogger(__name__)

# Bytes of the largest message, by default.
MAX_PAYLOAD = 1 << 20
# Bytes of a message that are kept for what travels beside items or values.
ENVELOPE_BYTES = 32_768
# Bytes that a lost connection keeps before it refuses to publish.
BUFFER_BYTES = 4 << 20

Network = Callable[[str, bytes], Sequence[float]]
"""The fate of a message: for each copy that arrives, the seconds that it takes."""


def reliable(subject: str, data: bytes) -> Sequence[float]:
    """A network that delivers each message once and at once."""
    return (0.0,)


class MemoryBroker:
    """The server that a test's connections share.

    Args:
        clock: Where time comes from; the running event loop's by default.
        network: Decides the fate of each message between a connection and the server, both ways.
        max_payload: Bytes of the largest message.
        name: What the server calls itself.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        network: Network = reliable,
        max_payload: int = MAX_PAYLOAD,
        name: str = "memory",
    ) -> None:
        self.clock: Clock = clock or LoopClock()
        self.network = network
        self.max_payload = max_payload
        self.name = name
        self.jetstream = MemoryJetStream(self.clock, self.route)
        self._connections: list[MemoryConnection] = []
        self._turn = 0

    def connect(self, name: str = "test", *, inbox_prefix: str = "_INBOX") -> MemoryConnection:
        """Open a connection."""
        connection = MemoryConnection(self, name, inbox_prefix)
        self.connect_as(connection)
        return connection

    def connect_as(self, connection: MemoryConnection) -> None:
        """Add a connection, such as one that loses or delays what passes it."""
        self._connections.append(connection)

    def restart(self, *, keep_files: bool = True) -> None:
        """Lose every connection and everything kept in memory, then come back."""
        connections = [c for c in self._connections if c.connected]
        for connection in connections:
            connection.lose()
        self.jetstream.restart(keep_files=keep_files)
        for connection in connections:
            connection.restore()

    def accept(self, message: MemoryMessage) -> None:
        """Accept a message from a connection, as the network delivers it."""
        for delay in self.network(message.subject, message.data):
            self._later(delay, lambda: self.route(message))

    def route(self, message: MemoryMessage) -> None:
        """Pass a message to JetStream and to the subscribers of its subject."""
        handled = not message.to and self.jetstream.handle(message)
        target = message.to or message.subject
        found = [
            subscription
            for connection in self._connections
            if connection.connected
            for subscription in connection.subscriptions
            if matches(subscription.subject, target)
        ]
        queues = {s.queue for s in found if s.queue}
        chosen = [s for s in found if not s.queue]
        for queue in queues:
            members = [s for s in found if s.queue == queue]
            self._turn += 1
            chosen.append(members[self._turn % len(members)])
        for subscription in chosen:
            self.send(subscription, message)
        if message.reply and not handled and not chosen:
            self.route(MemoryMessage(message.reply, "", b"", {"Status": "503"}))

    def send(self, subscription: MemorySubscription, message: MemoryMessage) -> None:
        for delay in self.network(message.subject, message.data):
            self._later(delay, lambda: subscription.connection.receive(subscription, message))

    def forget(self, connection: MemoryConnection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        if delay > 0:
            self.clock.call_at(self.clock.now() + delay, action)
        else:
            action()


class MemorySubscription:
    """One subscription of a `MemoryConnection`."""

    def __init__(
        self,
        connection: MemoryConnection,
        subject: str,
        on_message: OnMessage,
        queue: str,
        skip: Skip | None = None,
    ) -> None:
        self.connection = connection
        self.subject = subject
        self.on_message = on_message
        self.skip = skip
        self.queue = queue
        self.pending_msgs = 0

    async def unsubscribe(self) -> None:
        """End it and drop what is not handled yet. A second call does nothing."""
        if self in self.connection.subscriptions:
            self.connection.subscriptions.remove(self)
            self.connection.forget_pulls(self.subject)


class MemoryConnection:
    """A connection to a `MemoryBroker`; implements `Broker`."""

    def __init__(self, broker: MemoryBroker, name: str, inbox_prefix: str) -> None:
        self.name = name
        self.inbox_prefix = inbox_prefix
        self.errors = 0
        self.connected = True
        self.clustered = False
        self.api_prefix = "$JS.API."
        self.kv_prefix = ""
        self.subscriptions: list[MemorySubscription] = []
        self._broker = broker
        self._reconnect_callbacks: list[Callback] = []
        self._lost_callbacks: list[Callback] = []
        self._unsent: deque[MemoryMessage] = deque()
        self._received: deque[tuple[MemorySubscription, MemoryMessage]] = deque()
        self._arrived = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._reader: asyncio.Task[None] | None = None
        self._background = Background(name)
        self._closed = False

    @property
    def max_payload(self) -> int:
        return self._broker.max_payload

    @property
    def room(self) -> int:
        return self.max_payload - min(ENVELOPE_BYTES, self.max_payload // 2)

    @property
    def server_name(self) -> str:
        return self._broker.name

    @property
    def where(self) -> str:
        return f"memory://{self._broker.name}"

    def inbox(self, name: str) -> str:
        return f"{self.inbox_prefix}.{name}"

    def on_reconnect(self, callback: Callback) -> None:
        self._reconnect_callbacks.append(callback)

    def on_lost(self, callback: Callback) -> None:
        self._lost_callbacks.append(callback)

    def lose(self) -> None:
        """Cut the connection: messages on their way are lost, new ones wait."""
        if self.connected:
            self.connected = False
            self._received.clear()
            self._broker.jetstream.forget_pulls(s.subject for s in self.subscriptions)
            for callback in self._lost_callbacks:
                self._background.spawn(self._guarded(callback()), "call back")

    def forget_pulls(self, subject: str) -> None:
        """Let the server forget the pulls whose answers nobody would receive."""
        self._broker.jetstream.forget_pulls([subject])

    def restore(self) -> None:
        """Connect again, and send what waited."""
        if not self.connected and not self._closed:
            self.connected = True
            while self._unsent:
                self._broker.accept(self._unsent.popleft())
            for callback in self._reconnect_callbacks:
                self._background.spawn(self._guarded(callback()), "call back")

    async def publish(
        self,
        subject: str,
        payload: bytes | memoryview = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        if len(payload) > self.max_payload:
            raise TooLarge(
                f"a message of {len(payload)} bytes is over the server's limit of "
                f"{self.max_payload}",
                setting="max_payload",
                limit=self.max_payload,
                value=len(payload),
            )
        message = MemoryMessage(subject, reply, bytes(payload), headers)
        if self.connected:
            self._broker.accept(message)
            return
        if sum(m.size for m in self._unsent) + message.size > BUFFER_BYTES or self._closed:
            raise BrokerUnreachable(
                f"NATS at {self.where}: the connection is lost and too much waits to be sent"
            )
        self._unsent.append(message)

    async def subscribe(
        self,
        subject: str,
        callback: OnMessage,
        *,
        queue: str = "",
        pending_msgs: int = 65536,
        pending_bytes: int = 128 << 20,
        direct: bool = False,
        skip: Skip | None = None,
    ) -> MemorySubscription:
        subscription = MemorySubscription(self, subject, callback, queue, skip)
        self.subscriptions.append(subscription)
        if self._reader is None:
            self._reader = self._background.spawn(self._read(), "read")
        return subscription

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 5,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        answered: asyncio.Future[MemoryMessage] = asyncio.get_running_loop().create_future()

        async def receive(message: MemoryMessage) -> None:
            if not answered.done():
                answered.set_result(message)

        inbox = self.inbox(secrets.token_urlsafe(9))
        subscription = await self.subscribe(inbox, receive)
        clock = self._broker.clock
        clock.call_at(clock.now() + timeout, lambda: _cancel(answered))
        try:
            await self.publish(subject, payload, inbox, headers)
            message = await answered
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BrokerUnreachable(
                f"NATS at {self.where}: no answer on {subject} in time"
            ) from None
        finally:
            await subscription.unsubscribe()
        if (message.headers or {}).get("Status") == "503" and not message.data:
            raise NoResponders(f"nobody answers on {subject} at {self.where}")
        return message.data

    async def api(
        self, subject: str, payload: Mapping[str, Any] | None = None, timeout: float = 5
    ) -> dict[str, Any]:
        data = b"" if payload is None else msgspec.json.encode(payload)
        return checked(await self.request(f"$JS.API.{subject}", data, timeout))

    async def flush(self, timeout: float = 5) -> None:
        if not self.connected:
            raise BrokerUnreachable(f"NATS at {self.where}: the connection is lost")
        await asyncio.sleep(0)

    async def round_trip(self) -> float:
        await self.flush()
        delays = self._broker.network("", b"")
        return 2 * delays[0] if delays else 0.0

    async def settle(self) -> None:
        """Return when every message that has arrived is handled."""
        await self._quiet.wait()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed, self.connected = True, False
        self._broker.forget(self)
        await self._background.close()

    def receive(self, subscription: MemorySubscription, message: MemoryMessage) -> None:
        """Queue a message that the server sends; the reader handles it in a later turn."""
        if self.connected and subscription in self.subscriptions:
            subscription.pending_msgs += 1
            self._received.append((subscription, message))
            self._quiet.clear()
            self._arrived.set()

    async def _read(self) -> None:
        while True:
            self._arrived.clear()
            while self._received:
                subscription, message = self._received.popleft()
                subscription.pending_msgs -= 1
                if subscription in self.subscriptions:
                    await self._handle(subscription, message)
            self._quiet.set()
            await self._arrived.wait()

    async def _handle(self, subscription: MemorySubscription, message: MemoryMessage) -> None:
        try:
            skip = subscription.skip
            if skip is not None and skip(message.subject.encode(), message.data):
                return
        except Exception:
            self._callback_failed()
        await self._guarded(subscription.on_message(message))

    async def _guarded(self, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception:
            self._callback_failed()

    def _callback_failed(self) -> None:
        self.errors += 1
        logger.exception("%s: a callback failed", self.name)


def _cancel(future: asyncio.Future[MemoryMessage]) -> None:
    if not future.done():
        future.cancel()
