"""A subscription that outlives its client."""

from __future__ import annotations

from typing import Any, cast

import nats.errors
import pytest

from jetmap.nats.client import QuickClient
from jetmap.nats.subscription import NatsSubscription

pytestmark = pytest.mark.anyio


class Inner:
    pending_msgs = 3

    def __init__(self, id: int) -> None:
        self._id = id
        self.ended = 0

    async def unsubscribe(self) -> None:
        self.ended += 1
        raise nats.errors.ConnectionClosedError


class Client:
    def __init__(self) -> None:
        self.direct: dict[int, Any] = {}
        self.skips: dict[int, Any] = {}
        self.made: list[Inner] = []

    async def subscribe(self, subject: str, **options: Any) -> Inner:
        assert subject == "a" and "cb" in options
        self.made.append(Inner(len(self.made)))
        return self.made[-1]


async def test_it_is_started_on_each_client_and_ended_on_the_last() -> None:
    forgotten: list[NatsSubscription] = []
    subscription = NatsSubscription("a", {"cb": print}, forgotten.append, direct=True)
    assert subscription.pending_msgs == 0
    clients = [Client(), Client()]
    for client in clients:
        await subscription.start(cast(QuickClient, client))
        assert client.direct == {0: print}
    assert subscription.pending_msgs == 3
    await subscription.unsubscribe()
    await subscription.unsubscribe()
    assert clients[1].direct == {} and clients[1].made[0].ended == 1
    assert clients[0].made[0].ended == 0, "its client was lost with it"
    assert forgotten == [subscription] * 2 and subscription.pending_msgs == 0
