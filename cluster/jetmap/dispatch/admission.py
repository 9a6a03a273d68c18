"""Admit maps that cannot begin at once: refuse them, or wait for a broker or a worker."""

from __future__ import annotations

import asyncio

from jetmap.errors import BrokerUnreachable, TooLarge, TooManyMaps
from jetmap.nats.broker import Broker

from .agent_tracker import AgentTracker
from .map_spec import MapSpec

BROKER_SECONDS = 3.0  # Seconds a new map waits for a broker that is away.


class MapAdmission:
    """Wait with a map until it may begin, or raise the error that prevents it.

    Args:
        announce_seconds: Seconds to wait for an announcement of its function.

    Attributes:
        waiting: Number of callers' maps that wait for a broker or a worker.
    """

    def __init__(
        self, connection: Broker, agents: AgentTracker, max_open_maps: int, announce_seconds: float
    ) -> None:
        self.waiting = 0
        self._connection = connection
        self._agents = agents
        self._max_open_maps = max_open_maps
        self._announce_seconds = announce_seconds
        self._reconnected = asyncio.Event()

    async def admit(self, spec: MapSpec, open_maps: int | None) -> None:
        """Return when a worker can run the map; raise the error that prevents it.

        open_maps: open maps of callers, which are limited; None for a job, which is not.
        """
        if open_maps is not None:
            self._check_number(open_maps + self.waiting)
        if spec.overhead:
            self.check_overhead(spec.overhead)
        self.waiting += open_maps is not None
        try:
            if not self._connection.connected:
                await self._wait_for_broker()
            await self._agents.find(spec.function, spec.ref, self._announce_seconds)
        finally:
            self.waiting -= open_maps is not None

    def check_overhead(self, size: int) -> None:
        """Raise TooLarge if what each chunk carries beside its items is too large.

        size: bytes of the keyword parameters, and of a function that travels by value.
        """
        limit = self._connection.room // 2
        if size > limit:
            raise TooLarge(
                f"the keyword parameters (and the function, if it has no file) take {size:,} "
                f"bytes, and travel with each chunk of items; the limit is {limit:,}, half of the "
                "broker's largest message. Put large data (Cluster.put), or let the function read "
                "it itself, from a path or a name passed to it",
                setting="max_payload",
                limit=limit,
                value=size,
            )

    def on_reconnect(self) -> None:
        """Let the maps go on that wait for the broker."""
        self._reconnected.set()

    def _check_number(self, open_maps: int) -> None:
        limit = self._max_open_maps
        if open_maps >= limit:
            raise TooManyMaps(
                f"{open_maps} maps are open, which is the limit (setting max_open_maps); "
                "try again when some of them have ended",
                setting="max_open_maps",
                limit=limit,
            )

    async def _wait_for_broker(self) -> None:
        """Wait for a broker that is being restarted, for BROKER_SECONDS at most."""
        self._reconnected.clear()
        try:
            async with asyncio.timeout(BROKER_SECONDS):
                await self._reconnected.wait()
        except TimeoutError:
            raise BrokerUnreachable(
                f"the connection to NATS at {self._connection.where} has been lost for at least "
                f"{BROKER_SECONDS:g} s: open maps continue when it is back; try this one again "
                "then"
            ) from None
