"""One open map, as the scheduler sees it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.messages import Format, FunctionRef, Report

from .costs import Cost, Pace
from .flight import Flight
from .ledger import Ledger
from .memory import Memory
from .sources import Source


@dataclass(eq=False)
class MapState:
    """function, kwargs, ref, timeout: what each chunk carries. max_buffer: bytes of results
    that may wait for the reader before no more is sent. memory: of all maps; while it is full,
    only what was read is followed by more. stalled: whether more is to be sent once the reader
    has made room. room: bytes that the items of a chunk may have. stopped: nothing new is sent,
    only what is out already goes on. stored_bytes: of a job's values, that agents have stored."""

    id: str
    function: str
    format: Format
    kwargs: bytes
    timeout: float | None
    ref: FunctionRef | None
    source: Source
    ledger: Ledger
    cost: Cost
    max_buffer: int
    memory: Memory
    room: int = 1 << 20
    weight: float = 1.0
    taken: int = 0
    buffered: int = 0
    express_seconds: float = 0.0
    express_chunks: int = 0
    stopped: bool = False
    stalled: bool = False
    stored_bytes: int = 0
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.cost)

    @property
    def rest(self) -> int | None:
        """Items that are to be sent, or sent again; None: nobody knows yet."""
        remaining = self.source.remaining
        return None if remaining is None else remaining + self.ledger.returned_items

    def learn(self, report: Report, flight: Flight | None) -> None:
        """Take in what a report says of the cost of items. flight: its chunk, if that is out."""
        size = report.size or len(report.values)
        self.cost.learn(report.count, report.seconds, size)
        self.pace.learn(report.count, report.seconds)
        final = report.final
        if report.rest is not None and flight is not None:
            self.pace.refute(report.rest.start - flight.piece.start, report.rest.seconds)
        elif final is not None and flight is not None:
            if flight.is_late or (final.end < flight.end and final.crash is None):
                self.pace.refute(report.count, report.seconds)
            else:
                self.pace.is_sure = True

    @property
    def overhead(self) -> int:
        """Bytes that each chunk carries beside its items and a few words."""
        value = self.ref.value if self.ref is not None else None
        return len(self.kwargs) + len(value or b"")

    @property
    def has_work(self) -> bool:
        """Whether a chunk of it could be sent now, as far as the map is concerned."""
        if self.ledger.has_pieces:
            return True
        if self.stopped or not self.source.has_items:
            return False
        self.stalled = not self.has_room
        return not self.stalled

    @property
    def is_sent(self) -> bool:
        """Whether each item has been taken, and none waits to be sent again."""
        total = self.source.total
        return total is not None and self.taken >= total and not self.ledger.has_returned

    @property
    def has_room(self) -> bool:
        """Whether more results may come before those that are there are read."""
        if self.memory.is_full and (self.buffered or self.ledger.flights):
            return False
        return self.buffered < self.max_buffer

    @property
    def total(self) -> int | None:
        return self.source.total

    @property
    def is_complete(self) -> bool:
        """Whether each item has its outcome. (A job that goes on may have some of the last items'
        outcomes already, which are never taken: what was taken says nothing.)"""
        total = self.source.total
        return not self.source.has_items and total is not None and self.ledger.done >= total

    def backlog_items(self, *, has_workers: bool) -> int:
        """Items that wait to be computed; without workers those that were sent, too.

        One, where more may come and nobody knows how many.
        """
        remaining = self.source.remaining
        waiting = int(self.source.has_items) if remaining is None else remaining
        waiting += self.ledger.returned_items
        if not has_workers:
            waiting += sum(flight.piece.count for flight in self.ledger.flights.values())
        return waiting
