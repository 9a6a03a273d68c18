"""Gather small chunks into shared messages, without keeping them waiting for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .flight import Flight
from .open_map import OpenMap
from .outbox import Outbox, Spawn
from .scheduler import Scheduler


class Sharing:
    """Send chunks that the scheduler cut as small together with others.

    Args:
        cores: Number of cores of the pool.
        patience: Seconds that small maps may wait while none of those messages lands.
        pump: Has the dispatcher send what may be sent.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        outbox: Outbox,
        *,
        cores: Callable[[], int],
        patience: float,
        pump: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self._scheduler = scheduler
        self._outbox = outbox
        self._cores = cores
        self._patience = patience
        self._pump = pump
        self._spawn = spawn
        self._chunks: list[tuple[OpenMap, Flight]] = []
        self._gathering = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, map: OpenMap, flight: Flight) -> None:
        self._chunks.append((map, flight))

    async def send_soon(self, open_maps: int) -> None:
        """Send the chunks that were added.

        At once if there is one chunk of each open map; otherwise at the end of this turn of the
        event
        loop, with those that it adds.
        """
        if self._chunks:
            if open_maps == len(self._chunks):
                await self._send()
            elif not self._gathering:
                self._gathering = True
                self._spawn(self._send())
        if self._scheduler.has_waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self._patience, self._release, self._scheduler.parcels_landed
            )

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _send(self) -> None:
        self._gathering = False
        chunks, self._chunks = self._chunks, []
        offers: dict[str, list[tuple[OpenMap, Flight]]] = {}
        for map, flight in chunks:
            if flight.number in map.ledger.flights:
                offers.setdefault(flight.offer, []).append((map, flight))
        for offered in offers.values():
            for parcel in self._scheduler.parcels(offered, self._cores()):
                await self._outbox.publish(parcel)

    def _release(self, landed: int) -> None:
        """Stop waiting if no message has landed for ``patience`` seconds.

        landed: messages that had landed before.
        """
        self._timer = None
        if self._scheduler.has_waiting:
            if self._scheduler.parcels_landed == landed:
                self._scheduler.release()
            self._pump()
