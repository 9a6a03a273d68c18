"""Small chunks that share a message: gathered, sent, and not kept waiting for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .flight import Flight
from .mapstate import MapState
from .outbox import Outbox, Spawn
from .scheduler import Scheduler


class Sharing:
    """What the scheduler cut as small goes out with what else is small.

    cores: of the pool. patience: seconds that small maps may wait while none of those messages
    lands. pump: has the dispatcher send what may be sent.
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
        self._chunks: list[tuple[MapState, Flight]] = []
        self._gathering = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, state: MapState, flight: Flight) -> None:
        self._chunks.append((state, flight))

    async def send_soon(self, open_maps: int) -> None:
        """Sends what was added: at once if that is one chunk of each open map, else with what
        else this turn of the loop brings."""
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
        offers: dict[str, list[tuple[MapState, Flight]]] = {}
        for state, flight in chunks:
            if flight.number in state.ledger.flights:
                offers.setdefault(flight.offer, []).append((state, flight))
        for offered in offers.values():
            for parcel in self._scheduler.parcels(offered, self._cores()):
                await self._outbox.publish(parcel)

    def _release(self, landed: int) -> None:
        """Small maps have waited for ``patience`` seconds; ``landed`` messages had before."""
        self._timer = None
        if self._scheduler.has_waiting:
            if self._scheduler.parcels_landed == landed:
                self._scheduler.release()
            self._pump()
