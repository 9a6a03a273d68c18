"""Ask ahead for cores that are far from the broker, as ``Prefetch`` decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker

from .holdings import HeldChunk
from .intake import NAK, Intake
from .prefetch import FAR_SECONDS, PATIENCE, Prefetch
from .slot import Slot
from .withdrawals import Withdrawals

logger = logging.getLogger(__name__)

PINGS = 5  # Round trips in one measurement; the shortest counts.


class Prefetching:
    """Measure how far the broker is; pull for cores that compute, and hand back what came early."""

    def __init__(
        self,
        prefetch: Prefetch[Slot, list[HeldChunk]],
        connection: Broker,
        intake: Intake,
        background: Background,
        withdrawals: Withdrawals,
    ) -> None:
        self._prefetch = prefetch
        self._connection = connection
        self._intake = intake
        self._background = background
        self._withdrawals = withdrawals

    @property
    def is_far(self) -> bool:
        return self._prefetch.round_trip > 0

    async def measure(self) -> None:
        """Measure the round trip to the broker."""
        try:
            shortest = await self._connection.round_trip()
            for _ in range(PINGS - 1):
                if shortest < FAR_SECONDS:
                    break
                # A busy machine delays some answers, however near the broker is.
                shortest = min(shortest, await self._connection.round_trip())
            self._prefetch.on_measured(shortest)
            self._intake.on_measured(is_far=self.is_far)
        except JetmapError as error:
            logger.debug("the round trip was not measured: %s", error)

    def on_assigned(self, slot: Slot, chunks: list[HeldChunk]) -> None:
        """Pull the next chunk ahead of these chunks' expected end, if anything is known of them."""
        if len(chunks) == 1:
            chunks[0].begun = time.monotonic()
        delay = self._prefetch.delay([(held.head.function, held.head.count) for held in chunks])
        if delay is not None:
            self._later(delay, lambda: self._pull_ahead(slot, chunks[-1]))

    def wait(self, chunks: list[HeldChunk]) -> None:
        """Keep chunks that came before a core is free: those of short maps before others."""
        self._prefetch.wait(chunks, first=chunks[0].pending < 0)
        if self._prefetch.is_standing:
            self._prefetch.drop(lambda waiting: all(held.unwanted for held in waiting))
        else:
            self._later(PATIENCE * self._prefetch.round_trip, lambda: self._hand_back(chunks))

    async def clear(self) -> None:
        """Hand back all chunks that came before a core is free."""
        for waiting in self._prefetch.clear():
            for held in waiting:
                await self._withdrawals.release(held, NAK)

    async def _pull_ahead(self, slot: Slot, held: HeldChunk) -> None:
        if held.finished or self._intake.stopped or not slot.is_ready:
            return
        if self._prefetch.ask(slot):
            await self._intake.on_core_freed()

    async def _hand_back(self, chunks: list[HeldChunk]) -> None:
        """Let chunks run elsewhere whose core has not come free in time."""
        if self._prefetch.give_back(chunks):
            for held in chunks:
                await self._withdrawals.release(held, NAK)

    def _later(self, delay: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(delay, lambda: self._background.spawn(act(), "ask ahead"))
