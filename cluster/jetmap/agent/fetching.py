"""Fetch what did not come with chunks: large items, and the constants of their functions."""

from __future__ import annotations

from .constants import HostConstants
from .holdings import HeldChunk
from .neighbours import NeighbourDispatchers
from .parts import Transfers
from .withdrawals import Withdrawals

DELIVERIES = 5  # Deliveries of a chunk whose constants a host has no room for; then it fails.
# Asks the broker to deliver a chunk again half a second later.
LATER = b'-NAK {"delay": 500000000}'


class Fetching:
    """Let the chunks of one agent begin only with their items and constants."""

    def __init__(
        self,
        parts: Transfers,
        constants: HostConstants,
        neighbours: NeighbourDispatchers,
        withdrawals: Withdrawals,
    ) -> None:
        self._parts = parts
        self._constants = constants
        self._neighbours = neighbours
        self._withdrawals = withdrawals

    def is_needed(self, held: HeldChunk) -> bool:
        """Return whether a chunk needs bytes from elsewhere, where its worker cannot read them."""
        if held.constants and not self._constants.are_here(held):
            return True
        if held.at is None or held.items:
            return False
        return held.at.region is None or held.head.inbox not in self._neighbours

    async def fetch(self, chunks: list[HeldChunk]) -> None:
        """Fetch the items and constants of chunks; withdraw those that are no longer wanted."""
        for held in chunks:
            if held.constants and not await self._constants.fetch(held):
                await self._withdrawals.withdraw(held)
                continue
            if held.at is not None and not held.items:
                items = await self._parts.fetch(held, held.at)
                if items is None:
                    await self._withdrawals.withdraw(held)
                else:
                    held.items = items

    async def pass_on(self, chunks: list[HeldChunk]) -> list[HeldChunk]:
        """Let other hosts compute the chunks whose constants this one cannot have; not for ever.

        Returns the chunks that stay.
        """
        stay = []
        for held in chunks:
            deliveries = held.leases[-1].deliveries
            if held.refusal and not held.unwanted and deliveries < DELIVERIES:
                await self._withdrawals.release(held, LATER)
            else:
                stay.append(held)
        return stay
