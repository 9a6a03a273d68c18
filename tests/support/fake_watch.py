"""A watch of a pool without a broker: the test says what dispatchers announce and answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import msgspec

from jetmap.monitoring.pool_view import PoolView
from jetmap.wire.activity import Activity, ActivityAnswer
from jetmap.wire.presence import Presence


class FakeWatch:
    """Answers with what the test has put in.

    Attributes:
        asked: Questions so far.
        answer: The answer to all of them.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.answer = ActivityAnswer()
        self.pool = PoolView("default")
        self.is_watching = False

    def hear(self, *activities: Activity, agents: list[Presence] | None = None) -> None:
        now = time.monotonic()
        for activity in activities:
            self.pool.on_activity(activity, now)
        if agents is not None:
            self.pool.on_agents(agents, now)
        self.pool.advance(now)
        self.is_watching = True

    async def view(self) -> PoolView:
        self.pool.advance(time.monotonic())
        self.is_watching = True
        return self.pool

    async def changes(self) -> AsyncGenerator[bytes, None]:
        view = await self.view()
        yield msgspec.json.encode(view.snapshot())
        yield msgspec.json.encode(view.advance(time.monotonic()))

    async def ask(self, what: str, id: str, value: int = 0) -> ActivityAnswer:
        self.asked.append((what, id, value))
        return self.answer
