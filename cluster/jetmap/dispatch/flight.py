"""A map's items on their way: pieces that are cut, and flights of chunks that are out. No I/O.

The states of a chunk, as its dispatcher sees it::

    Piece --sent--> Flight --report, ack or claim--> Flight (confirmed)
      ^               |                                   |
      |               +-----------------+-----------------+
      |                                 |
      |   all its items have outcomes, or it never can travel: ended
      |   silent for too long: published again, as the same flight with the next attempt
      |   its offer is served by nobody: taken back
      |   its worker died: ended; the item in progress gets a piece of its own
      |   a second agent vanished with it: ended; each item becomes a suspect
      |                                 |
      +--- items without an outcome ----+

A suspect is a piece of one item. The quarantine lets one of them out at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.messages import Final, Lane
from jetmap.wire.timing import SUSPECT_SECONDS

from .outcomes import Batch


@dataclass
class Piece:
    """Consecutive items that are to be sent, or sent again."""

    start: int
    count: int
    items: bytes
    losses: int = 0  # Agents that have vanished with these items.
    suspect: bool = False  # One item that may have cost agents; goes out alone.


@dataclass
class Parcel:
    """Small chunks that travel in one message."""

    left: int  # Chunks that are still out.


@dataclass
class Flight:
    """A chunk that is out."""

    number: int
    piece: Piece
    lane: Lane
    offer: str
    seconds: float  # Estimated compute, less what was reported.
    published: float  # Time of the last publish.
    heard: float  # Time of the last publish, claim or report.
    attempt: int = 1
    subject: str = ""  # Subject of the message that carries it.
    parcel: Parcel | None = None
    first: float = 0.0  # Time of the first publish.
    claims: dict[str, float] = field(default_factory=dict)  # Time of each agent's last claim.
    unclaimed: bool = False  # An agent vanished with it before it could claim it.
    confirmed: bool = False  # The broker has it, or had it.
    host: str = ""  # Host of the agent that claimed it last.
    final: Final | None = None
    is_late: bool = False  # It has given back items behind one that takes too long.

    @property
    def end(self) -> int:
        """Index behind the last item."""
        return self.piece.start + self.piece.count


@dataclass
class Settlement:
    """The consequences of a message for a map."""

    batches: list[Batch] = field(default_factory=list)  # Outcomes that are new.
    ended: Flight | None = None  # The chunk that has ended with it.


class Quarantine:
    """Let out one suspect at a time, among all maps of a dispatcher.

    If an agent then vanishes, that suspect alone is to blame.
    """

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

    def expire(self, now: float) -> None:
        """Stop waiting for a suspect that has been out for long: it does not kill at once."""
        if self._out is not None and now - self._out.first > SUSPECT_SECONDS:
            self._out = None
