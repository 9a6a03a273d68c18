"""Let go of chunks that are not reported: nobody wants them any more, or they run elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from jetmap.wire.messages import ClaimAnswer

from .batches import Gathering
from .claims import Claims
from .holdings import HeldChunk, Holdings
from .parts import Transfers
from .reports import Publish
from .slot import Slot

WITHDRAWN_KEPT = 1000  # Withdrawn maps to remember.
TERM = b"+TERM"  # Asks the broker to deliver a chunk no more.


class Withdrawals:
    """End the chunks of one agent that are no longer wanted, wherever in the agent they are.

    Args:
        grace: Seconds that an item in progress may go on.
        released: Set whenever a chunk is let go.

    Attributes:
        maps: The latest withdrawn maps; chunks of theirs may still be on their way.
    """

    def __init__(
        self,
        held: Holdings,
        slots: Sequence[Slot],
        claims: Claims,
        parts: Transfers,
        gathering: Gathering[HeldChunk],
        send: Publish,
        grace: float,
        released: asyncio.Event,
    ) -> None:
        self._held = held
        self._slots = slots
        self._claims = claims
        self._parts = parts
        self._gathering = gathering
        self._send = send
        self._grace = grace
        self._released = released
        self.maps: dict[str, None] = {}

    async def on_claim_answer(self, answer: ClaimAnswer) -> None:
        """Withdraw the chunks that their dispatcher does not want."""
        self._held.on_answer(answer.dispatcher, time.monotonic())
        for map, number in answer.unwanted:
            held = self._held.get(map, number)
            if held is not None:
                await self.withdraw(held)
        self._claims.on_answer(answer)

    async def withdraw_map(self, map: str) -> None:
        """End the chunks of a map, and those that are still on their way."""
        self.maps[map] = None
        if len(self.maps) > WITHDRAWN_KEPT:
            del self.maps[next(iter(self.maps))]
        for held in self._held.of_map(map):
            await self.withdraw(held)

    async def withdraw(self, held: HeldChunk) -> None:
        """End a chunk that is no longer wanted: by its worker, or by replacing that."""
        if held.unwanted:
            return
        held.unwanted = True
        self._parts.check()
        self._gathering.drop(held)
        if not any(slot.stop(held, self._grace) for slot in self._slots):
            self._claims.refuse(held)
            await self.release(held, TERM)

    async def release(self, held: HeldChunk, answer: bytes) -> None:
        """Hold a chunk no more.

        answer: what the broker gets for each delivery whose last chunk this was.
        """
        self._held.drop(held)
        self._released.set()
        for ack in held.release():
            await self._send(ack, answer)
