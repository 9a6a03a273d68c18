"""One connection to NATS that outlives every fault of the broker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import nats.errors

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, JetmapError

from .answers import JetStreamError, checked
from .auth import Auth, without_secrets
from .broker import Callback, OnMessage, Skip
from .callback_guard import CallbackGuard
from .client import QuickClient
from .dialing import (
    CONNECT_SECONDS,
    RETRY_SECONDS,
    check_cancelled,
    dial,
    dial_within,
    discard,
)
from .errors import DomainSilent, NoResponders, NotPermittedError, RefusedError, translated, typed
from .open_requests import OpenRequests
from .subscription import NatsSubscription

__all__ = ["Auth", "Connection", "JetStreamError", "NatsSubscription", "NoResponders", "checked"]

logger = logging.getLogger(__name__)

# Bytes of a message that are kept for what travels beside items or values.
ENVELOPE_BYTES = 32_768
# Bytes waiting to be sent, above which a publish may have to wait for the socket.
CROWDED_BYTES = 2**20


class Connection:
    """A NATS client that reconnects for ever, and is replaced when nats-py gives up on it.

    While the broker is away, publishes are kept (up to 4 MiB) and requests time out.
    errors: how many callbacks raised, messages were dropped and subjects were refused; each is
    logged. domain: the JetStream domain in use, if it is not the server's own.
    """

    def __init__(self, servers: Sequence[str], *, name: str, auth: Auth, inbox_prefix: str) -> None:
        self.domain = auth.domain
        self.api_prefix = f"$JS.{auth.domain}.API." if auth.domain else "$JS.API."
        # A leaf node passes what is for a bucket of another domain only under this.
        self.kv_prefix = self.api_prefix if auth.domain else ""
        self.servers = list(servers)
        self.name = name
        self.inbox_prefix = inbox_prefix
        self.errors = 0
        self._auth = auth
        self._client = QuickClient()
        self._subscriptions: list[NatsSubscription] = []
        self._reconnect_callbacks: list[Callback] = []
        self._lost_callbacks: list[Callback] = []
        self._background = Background(name)
        self._closing = False
        self._requests = OpenRequests()
        self._guard = CallbackGuard(self._on_callback_failed)
        self._slow_until = 0.0

    @classmethod
    async def open(
        cls,
        servers: Sequence[str],
        *,
        name: str,
        auth: Auth | None = None,
        timeout: float = CONNECT_SECONDS,
        inbox_prefix: str = "_INBOX",
    ) -> Connection:
        """Connect, trying again for ``timeout`` seconds.

        Raises BrokerUnreachable if nothing listens, and at once if the server refuses the
        credentials or the certificate.
        """
        connection = cls(servers, name=name, auth=auth or Auth(), inbox_prefix=inbox_prefix)
        connection._client = await dial_within(connection._connect, connection.where, timeout)
        return connection

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes."""
        return self._client.max_payload

    @property
    def room(self) -> int:
        """Bytes that items or values may have in one message, beside its envelope."""
        most = self._client.max_payload
        return most - min(ENVELOPE_BYTES, most // 2)

    @property
    def clustered(self) -> bool:
        """Return whether several servers may hold the streams: a cluster, or one elsewhere."""
        return bool(self.domain or self._client._server_info.get("cluster"))

    @property
    def server_version(self) -> str:
        return str(self._client._server_info.get("version", "unknown"))

    @property
    def server_name(self) -> str:
        """The server's own name."""
        return str(self._client._server_info.get("server_name", ""))

    def inbox(self, name: str) -> str:
        """Return the subject prefix on which ``name`` (one token) is answered."""
        return f"{self.inbox_prefix}.{name}"

    def on_reconnect(self, callback: Callback) -> None:
        """Run ``callback``, in a task of its own, each time the broker is back."""
        self._reconnect_callbacks.append(callback)

    def on_lost(self, callback: Callback) -> None:
        """Run ``callback``, in a task of its own, each time the broker is lost."""
        self._lost_callbacks.append(callback)

    def move(self, servers: Sequence[str], auth: Auth | None = None) -> None:
        """Connect to these servers the next time the connection is lost.

        auth: the credentials to use there; given these, reconnect now.
        """
        self.servers = list(servers)
        if auth is not None:
            self._auth = auth
            # Its closed callback makes the next client.
            self._background.spawn(discard(self._client), "close the client")
            return
        try:
            self._client.set_server_pool(self.servers)
        except nats.errors.ConnectionClosedError:
            pass  # being made anew, with the new servers

    async def publish(
        self,
        subject: str,
        payload: bytes | memoryview = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a message, or keep it until the broker is back.

        Raises BrokerUnreachable if more than 4 MiB wait to be sent, TooLarge if the payload
        is over ``max_payload``.
        """
        client = self._client
        if headers is None and client.publish_soon(subject, payload, reply):
            return
        payload = cast(bytes, payload)  # nats-py asks only for its length.
        try:
            if client.pending_data_size < CROWDED_BYTES:
                await client.publish(subject, payload, reply, headers)
            else:
                # nats-py swallows a cancellation while it waits for its full buffer.
                task = asyncio.current_task()
                before = task.cancelling() if task else 0
                await client.publish(subject, payload, reply, headers)
                if task and task.cancelling() > before:
                    raise asyncio.CancelledError
        except nats.errors.Error as error:
            raise self._translated(error, subject, len(payload)) from error

    async def subscribe(
        self,
        subject: str,
        callback: OnMessage,
        *,
        queue: str = "",
        pending_msgs: int = 65536,
        pending_bytes: int = 128 * 2**20,
        direct: bool = False,
        skip: Skip | None = None,
    ) -> NatsSubscription:
        """Call ``callback`` with one message after the other.

        pending_msgs, pending_bytes: limits on messages that wait to be handled; further ones are
        dropped, logged and counted. direct: run the callback in the reader itself, which is faster
        but reads nothing else meanwhile, so it must not wait for anything on this connection; nor
        use asyncio.timeout, because it begins outside of any task. skip: called first with the
        subject and the payload of each message of a direct subscription; returns whether it needs
        no callback.
        """
        options = {
            "cb": self._guard.of_messages(subject, callback),
            "queue": queue,
            "pending_msgs_limit": pending_msgs,
            "pending_bytes_limit": pending_bytes,
        }
        skips = self._guard.of_skips(subject, skip) if skip is not None else None
        subscription = NatsSubscription(subject, options, self._forget, direct=direct, skip=skips)
        self._subscriptions.append(subscription)
        try:
            await subscription.start(self._client)
        except nats.errors.ConnectionClosedError:
            pass  # being made anew, which starts every subscription
        return subscription

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 5,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """Return the answer to a message.

        Raises NoResponders if nobody listens, Forbidden if the server refuses the subject, both
        at once; BrokerUnreachable after ``timeout`` seconds.
        """
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(None) as patience:
                with self._requests.add(subject, patience):
                    answer = await self._client.request(subject, payload, timeout, headers=headers)
        except (nats.errors.Error, TimeoutError) as error:
            raise self._translated(error, subject, len(payload)) from error
        check_cancelled(task, cancelled)
        return answer.data

    async def api(
        self, subject: str, payload: Mapping[str, Any] | None = None, timeout: float = 5
    ) -> dict[str, Any]:
        """Return the answer of ``$JS.API.<subject>``. Raises JetStreamError if it is a refusal."""
        data = b"" if payload is None else msgspec.json.encode(payload)
        try:
            return checked(await self.request(f"{self.api_prefix}{subject}", data, timeout))
        except NoResponders as error:
            raise self._no_jetstream() from error

    def _no_jetstream(self) -> NoResponders:
        if self.domain:
            return DomainSilent(
                f"no JetStream of domain {self.domain!r} answers at {self.where}: is "
                "nats_js_domain the domain in the configuration of the servers that hold the "
                "streams, and is the leaf node connected to them?"
            )
        return NoResponders(
            f"JetStream does not answer at {self.where}: enable it in the server (nats-server "
            "-js) and for this account; where that is a leaf node of servers that have it, set "
            "nats_js_domain to their domain"
        )

    async def flush(self, timeout: float = 5) -> None:
        """Return when the server has taken everything that was published."""
        await self._ping(timeout)

    async def round_trip(self) -> float:
        """Return the seconds to the server and back."""
        began = time.monotonic()
        await self._ping(5)
        return time.monotonic() - began

    async def _ping(self, timeout: float) -> None:
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            await self._client.flush(cast(int, timeout))
        except (nats.errors.Error, TimeoutError) as error:
            raise self._translated(error, "PING", 0) from error
        check_cancelled(task, cancelled)

    async def close(self) -> None:
        """Send what was published, then close. A second call does nothing."""
        if self._closing:
            return
        try:
            if self.connected:
                await self.flush(1)
        except BrokerUnreachable:
            logger.info("the broker went away before everything was sent")
        finally:
            self._closing = True
            await self._background.close()
            await discard(self._client)

    # Making and remaking the client

    async def _connect(self, timeout: float) -> QuickClient:
        return await dial(
            self.servers,
            name=self.name,
            auth=self._auth,
            inbox_prefix=self.inbox_prefix,
            timeout=timeout,
            listener=self,
        )

    async def _renew(self) -> None:
        """Replace a client that nats-py closed, and start the subscriptions again."""
        while True:
            try:
                client = await self._connect(CONNECT_SECONDS)
                break
            except (OSError, nats.errors.Error, RefusedError, JetmapError) as error:
                logger.debug("connecting again failed: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
        self._client = client
        for subscription in list(self._subscriptions):
            if subscription not in self._subscriptions:
                continue  # unsubscribed meanwhile
            try:
                await subscription.start(client)
            except nats.errors.Error as error:
                logger.debug("closed again while subscribing: %s", error)
                return  # its closed callback has started the next renewal
        self._is_back()

    # The client's events

    async def client_lost(self, client: QuickClient) -> None:
        if client is self._client and not self._closing:
            logger.warning("%s: connection to NATS at %s lost", self.name, self.where)
            for callback in self._lost_callbacks:
                self._background.spawn(self._guard.run(callback), "call back")

    async def client_back(self, client: QuickClient) -> None:
        if client is self._client and not self._closing:
            self._is_back()

    async def client_closed(self, client: QuickClient) -> None:
        if client is self._client and not self._closing:
            self._background.spawn(self._renew(), "connect again")

    async def client_failed(self, client: QuickClient, error: Exception) -> None:
        error = typed(error)
        if isinstance(error, nats.errors.SlowConsumerError):
            self.errors += 1
            now = time.monotonic()
            if now >= self._slow_until:  # there may be thousands a second
                self._slow_until = now + 1
                logger.error("%s: messages on %s dropped: too slow", self.name, error.subject)
        elif isinstance(error, NotPermittedError):
            self.errors += 1
            if not self._requests.refuse(error.subject):
                logger.error("%s: %s", self.name, error)
        elif isinstance(error, nats.errors.Error | OSError):
            logger.debug("%s: %r", self.name, error)
        else:
            self.errors += 1
            logger.error("%s: the NATS client failed", self.name, exc_info=error)

    def _is_back(self) -> None:
        logger.info("%s: connected to NATS again", self.name)
        for callback in self._reconnect_callbacks:
            self._background.spawn(self._guard.run(callback), "call back")

    def _on_callback_failed(self, name: str) -> None:
        self.errors += 1
        logger.exception("%s: %s failed", self.name, name)

    def _forget(self, subscription: NatsSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    @property
    def where(self) -> str:
        """The servers, without secrets."""
        return ", ".join(without_secrets(s) for s in self.servers)

    def _translated(self, error: Exception, subject: str, size: int) -> JetmapError:
        refused = self._requests.was_refused(subject)
        return translated(
            error, subject, size, where=self.where, limit=self.max_payload, refused=refused
        )
