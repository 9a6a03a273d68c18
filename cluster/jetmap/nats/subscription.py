"""A subscription that outlives its client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.subscription import Subscription as ClientSubscription

from .broker import Skip
from .client import QuickClient


class NatsSubscription:
    """A subscription that is renewed with its connection."""

    def __init__(
        self,
        subject: str,
        options: dict[str, Any],
        forget: Callable[[NatsSubscription], None],
        *,
        direct: bool = False,
        skip: Skip | None = None,
    ) -> None:
        self.subject = subject
        self._direct = direct
        self._skip = skip
        self._forget = forget
        self._options = options
        self._inner: ClientSubscription | None = None
        self._client: QuickClient | None = None

    @property
    def pending_msgs(self) -> int:
        """Messages received and not yet handled."""
        return self._inner.pending_msgs if self._inner else 0

    async def unsubscribe(self) -> None:
        """End it and drop messages not yet handled. A second call does nothing."""
        self._forget(self)
        inner, self._inner = self._inner, None
        if inner is not None and self._client is not None:
            self._client.direct.pop(inner._id, None)
            self._client.skips.pop(inner._id, None)
            try:
                await inner.unsubscribe()
            except nats.errors.Error:
                pass  # The client is closed, and its subscriptions with it.

    async def start(self, client: QuickClient) -> None:
        inner = await client.subscribe(self.subject, **self._options)
        if self._direct:
            client.direct[inner._id] = self._options["cb"]
            if self._skip is not None:
                client.skips[inner._id] = self._skip
        self._inner, self._client = inner, client
