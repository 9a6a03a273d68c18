"""Pieces of a map on their way: as chunks that are out, and what becomes of them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.messages import Final, Lane
from jetmap.wire.timing import SUSPECT_SECONDS

from .outcomes import Batch


@dataclass
class Piece:
    """Consecutive items that are to be sent (again). losses: agents that have vanished with
    them; then whoever gets them claims them before it computes. suspect: that was once too
    often: it is one item, and goes out while no other suspect is."""

    start: int
    count: int
    items: bytes
    losses: int = 0
    suspect: bool = False


@dataclass
class Parcel:
    """Small chunks that travel in one message. left: how many of them are still out."""

    left: int


@dataclass
class Flight:
    """A chunk that is out.

    seconds: its estimated compute, less what was reported. heard: when it was published, or
    last claimed. confirmed: whether it is known to have arrived, at the broker or behind it.
    first: when it was published first. subject: of the message that it went out
    in. claims: the agents that have claimed it, and when each did last. unclaimed: whether one
    vanished before it could.
    host: of the agent that claimed it last. is_late: whether it has given back items behind one
    that takes too long.
    """

    number: int
    piece: Piece
    lane: Lane
    offer: str
    seconds: float
    published: float
    heard: float
    attempt: int = 1
    subject: str = ""
    parcel: Parcel | None = None
    first: float = 0.0
    claims: dict[str, float] = field(default_factory=dict)
    unclaimed: bool = False
    confirmed: bool = False
    host: str = ""
    final: Final | None = None
    is_late: bool = False

    @property
    def end(self) -> int:
        return self.piece.start + self.piece.count


@dataclass
class Settlement:
    """What follows from a message: outcomes that are new; whether the chunk has ended."""

    batches: list[Batch] = field(default_factory=list)
    ended: Flight | None = None


class Quarantine:
    """Lets one suspect out at a time, of all maps of a dispatcher: then the agent that vanishes
    with it tells of it alone."""

    def __init__(self) -> None:
        self._out: Flight | None = None

    @property
    def is_free(self) -> bool:
        return self._out is None

    def enter(self, flight: Flight) -> None:
        self._out = flight

    def leave(self, flight: Flight) -> None:
        if self._out is flight:
            self._out = None

    def look(self, now: float) -> None:
        """Once a second: what has lived so long does not kill at once, and holds up no other."""
        if self._out is not None and now - self._out.first > SUSPECT_SECONDS:
            self._out = None
