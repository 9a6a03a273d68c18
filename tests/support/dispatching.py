"""The parts of a dispatcher, put together without a broker or a clock."""

from __future__ import annotations

from typing import Any

from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.flight import Flight, Quarantine
from jetmap.dispatch.ledger import Ledger
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.maps import OpenMaps
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.roster import Roster
from jetmap.dispatch.scheduler import Scheduler
from jetmap.dispatch.sources import RawItems, Source
from jetmap.dispatch.stats import Stats
from jetmap.wire import arrays
from jetmap.wire.messages import Final, Report
from jetmap.wire.presence import FunctionInfo, Presence
from jetmap.wire.protocol import PROTOCOL

FUNCTION = "f"


def presence(agent: str = "a", offer: str = "offer", **changes: Any) -> Presence:
    """Make the announcement of an agent with one core that offers FUNCTION."""
    fields: dict[str, Any] = {
        "agent": agent,
        "host": f"host-{agent}",
        "pid": 1,
        "pool": "p",
        "offer": offer,
        "version": "1",
        "rank": 1,
        "cores": 1,
        "ready": 1,
        "busy": 0,
        "draining": False,
        "gone": False,
        "protocol": PROTOCOL,
        "functions": [FunctionInfo(FUNCTION)],
        "listed": [],
    }
    return Presence(**(fields | changes))


class Parts:
    """A scheduler, a roster and open maps, as a dispatcher has them."""

    def __init__(self, cores: int = 1) -> None:
        self.stats = Stats()
        self.roster = Roster()
        self.scheduler = Scheduler(Cutting())
        self.maps = OpenMaps(self.scheduler, self.roster, self.stats)
        self.quarantine = Quarantine()
        self.cores = cores
        self.roster.on_presence(presence(cores=cores), 0.0)

    def open(
        self, items: int | Source, id: str = "", *, attempts: int = 2, **fields: Any
    ) -> OpenMap:
        """Open a map of this many items, or of a source."""
        spec = MapSpec(function=FUNCTION, format="json", **fields)
        run = OpenMap(
            id or f"m{self.stats.maps_started}",
            spec,
            RawItems([b"0"] * items, "json") if isinstance(items, int) else items,
            Ledger("json", attempts, quarantine=self.quarantine),
            self.scheduler.cost(FUNCTION),
            memory=Memory(1 << 30),
            max_buffer=1 << 20,
        )
        self.maps.add(run)
        return run

    def send(self, now: float = 0.0, offer: str = "offer") -> list[tuple[OpenMap, Flight]]:
        """Send every chunk that the scheduler lets out."""
        sent = []
        while (turn := self.scheduler.next(self.cores)) is not None:
            run, piece = turn
            if piece.error is not None:
                self.maps.refuse(run, piece.error)
                continue
            flight = run.ledger.send(piece, offer, now)
            sent.append((run, flight))
        for run in self.scheduler.emptied:
            self.maps.check_end(run)
        self.scheduler.emptied.clear()
        return sent


class StoredItems:
    """Items of a job whose outcomes are in the store."""

    def __init__(self, *ranges: tuple[int, int]) -> None:
        self._ranges = list(ranges)

    def ranges(self) -> list[tuple[int, int]]:
        return self._ranges

    async def read(self) -> list[tuple[int, int]]:
        return self._ranges


def report_of(run: OpenMap, flight: Flight, seconds: float = 0.001, **fields: Any) -> Report:
    """Make the report that ends a chunk, with a null for each item."""
    piece = flight.piece
    values = arrays.nulls(piece.count, "json")
    head = (run.id, flight.number, flight.attempt, piece.start, piece.count, values)
    rest: dict[str, Any] = {"errors": [], "seconds": seconds, "final": Final(flight.end)}
    return Report(*head, **(rest | fields))
