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

from bisect import insort
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Final, Format, Lane, Region
from jetmap.wire.scattered import Scattered
from jetmap.wire.timing import SUSPECT_SECONDS

from .outcomes import Batch


class Piece(msgspec.Struct):
    """Consecutive items that are to be sent, or sent again."""

    start: int
    count: int
    items: bytes | Scattered
    losses: int = 0  # Agents that have vanished with these items.
    suspect: bool = False  # One item that may have cost agents; goes out alone.
    error: ErrorRecord | None = None  # Why the item, which is then the only one, cannot travel.
    lane: Lane = "main"  # As the scheduler chose when the piece was last cut.
    is_long: bool = False  # It takes longer than somebody else should wait for its core.
    seconds: float = 0.0  # Estimated compute, at that time.
    tries: int = 0  # Earlier calls of the function for these items; all raised.
    apart: bool = False  # It has cost a worker, or may have: its items share no call with others.
    postponed: frozenset[int] = frozenset()  # Items that wait for their next try elsewhere.

    @property
    def encoded(self) -> bytes:
        """The items as one encoded array, which is made once."""
        if type(self.items) is not bytes:
            self.items = bytes(self.items)
        return self.items


class Parcel(msgspec.Struct):
    """Small chunks that travel in one message."""

    left: int  # Chunks that are still out.


class Flight(msgspec.Struct, eq=False):
    """A chunk that is out."""

    number: int
    piece: Piece
    offer: str
    seconds: float  # Estimated compute, less what was reported.
    published: float  # Time of the last publish.
    heard: float  # Time of the last publish, claim or report.
    attempt: int = 1
    subject: str = ""  # Subject of the message that carries it.
    parcel: Parcel | None = None
    first: float = 0.0  # Time of the first publish.
    claims: dict[str, float] = {}  # Time of each agent's last claim.
    # Time of its first claim, if another agent may have begun it before, without a claim.
    reclaimed: float | None = None
    confirmed: bool = False  # The broker has it, or had it.
    host: str = ""  # Host of the agent that claimed it last.
    final: Final | None = None
    is_inline: bool = False  # An older agent may take it: its items travel with it, however large.
    region: Region | None = None  # The shared memory with the items that it was sent with.
    is_late: bool = False  # It has given back items behind one that takes too long.
    is_hurried: bool = False  # It was asked to end early, for somebody else.

    @property
    def end(self) -> int:
        """Index behind the last item."""
        return self.piece.start + self.piece.count


class Settlement(msgspec.Struct):
    """The consequences of a message for a map."""

    batches: list[Batch] = []  # Outcomes that are new.
    ended: Flight | None = None  # The chunk that has ended with it.


class _Entry(msgspec.Struct, eq=False):
    """A piece that waits."""

    piece: Piece  # Its ``items`` are those that it had when it came back.
    elements: Sequence[bytes] = ()  # These items, split once: many cuts cost no more than one.
    offset: int = 0  # Elements that have been cut off already.


class Returned:
    """The pieces of one map that came back, the earliest items first."""

    def __init__(self, format: Format) -> None:
        self.count = 0
        self._format: Format = format
        self._entries: list[_Entry] = []  # Sorted, the earliest last.

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> tuple[int, int]:
        """The range of items of the first piece."""
        piece = self._entries[-1].piece
        return piece.start, piece.start + piece.count

    def put(self, piece: Piece) -> None:
        """Add a piece in its place."""
        self.count += piece.count
        insort(self._entries, _Entry(piece), key=lambda entry: -entry.piece.start)

    def pop(self, count: int | None = None) -> Piece:
        """Cut off the first piece, or its first ``count`` items."""
        entry = self._entries[-1]
        piece = entry.piece
        if count is None or count >= piece.count:
            self._entries.pop()
            self.count -= piece.count
            if not entry.elements:
                return piece
            return replace(piece, items=arrays.join(entry.elements[entry.offset :], self._format))
        if not entry.elements:
            entry.elements = arrays.split(piece.encoded, self._format)
        end = entry.offset + count
        head = arrays.join(entry.elements[entry.offset : end], self._format)
        entry.offset = end
        entry.piece = replace(piece, start=piece.start + count, count=piece.count - count)
        self.count -= count
        return replace(piece, count=count, items=head)


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
