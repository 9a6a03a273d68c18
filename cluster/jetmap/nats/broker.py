"""The broker as the rest of jetmap sees it: publish, subscribe, request, and JetStream's API.

Two things implement it: `Connection`, over a real nats-server, and `MemoryConnection`, in this
process. One contract suite runs against both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol


class Message(Protocol):
    """A message that arrived. reply: the subject on which it wants an answer, or empty."""

    @property
    def subject(self) -> str: ...
    @property
    def reply(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str] | None: ...


Callback = Callable[[], Awaitable[None]]
OnMessage = Callable[[Any], Coroutine[Any, Any, None]]
Skip = Callable[[bytes, bytes], bool]


class Subscription(Protocol):
    """A subscription, until it is ended."""

    @property
    def pending_msgs(self) -> int:
        """Messages received and not yet handled."""
        ...

    async def unsubscribe(self) -> None:
        """End it and drop what is not handled yet. A second call does nothing."""
        ...


class Broker(Protocol):
    """A connection that outlives every fault of the broker.

    errors: exceptions in callbacks, dropped messages and refusals so far. api_prefix, kv_prefix:
    what subjects of JetStream's API and of buckets begin with.
    """

    errors: int
    inbox_prefix: str
    api_prefix: str
    kv_prefix: str

    @property
    def connected(self) -> bool:
        """Return whether a server can be reached now."""
        ...

    @property
    def clustered(self) -> bool:
        """Return whether several servers may hold the streams."""
        ...

    @property
    def server_name(self) -> str:
        """The server's own name."""
        ...

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes."""
        ...

    @property
    def room(self) -> int:
        """Bytes that items or values may have in one message, beside its envelope."""
        ...

    @property
    def where(self) -> str:
        """The servers, without secrets."""
        ...

    def inbox(self, name: str) -> str:
        """Return the subject prefix on which ``name`` (one token) is answered."""
        ...

    def on_reconnect(self, callback: Callback) -> None:
        """Run ``callback``, in a task of its own, each time the broker is back."""
        ...

    def on_lost(self, callback: Callback) -> None:
        """Run ``callback``, in a task of its own, each time the broker is lost."""
        ...

    async def publish(
        self,
        subject: str,
        payload: bytes | memoryview = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a message, or keep it until the broker is back.

        Raises:
            BrokerUnreachable: More than 4 MiB wait to be sent.
            TooLarge: The payload is over ``max_payload``.
        """
        ...

    async def subscribe(
        self,
        subject: str,
        callback: OnMessage,
        *,
        queue: str = "",
        direct: bool = False,
        skip: Skip | None = None,
    ) -> Subscription:
        """Call ``callback`` with one message after the other.

        Args:
            queue: Of the subscribers with one name, each message goes to one.
            direct: Run the callback in the reader itself; it must not wait for this connection.
            skip: Called first with the subject and the payload of each message of a direct
                subscription; returns whether it needs no callback.
        """
        ...

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 5,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """Return the answer to a message.

        Raises:
            NoResponders: Nobody listens on the subject.
            BrokerUnreachable: No answer within ``timeout`` seconds.
        """
        ...

    async def api(
        self, subject: str, payload: Mapping[str, Any] | None = None, timeout: float = 5
    ) -> dict[str, Any]:
        """Return the answer of ``$JS.API.<subject>``.

        Raises:
            JetStreamError: JetStream refused the request.
        """
        ...

    async def flush(self, timeout: float = 5) -> None:
        """Return when the server has taken everything that was published."""
        ...

    async def round_trip(self) -> float:
        """Return the seconds to the server and back.

        Raises:
            BrokerUnreachable: No answer within five seconds.
        """
        ...

    async def close(self) -> None:
        """Send what was published, then close. A second call does nothing."""
        ...
