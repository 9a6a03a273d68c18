"""The account of one map: items sent, outcomes received, items to send again. No I/O.

An outcome is accepted by its item's index, from any agent and any attempt: the first one of an
item wins. Chunks only matter for outcomes still to come: a chunk that ends without all its
outcomes returns the missing items, cut so that an item that kills workers is soon alone.

The states of an item::

    in the source --cut--> in a piece --sent--> in a flight --outcome reported--> done
                               ^                    |
                               |                    +--its item timed out, killed its worker
                               |                    |  for the last time, or cannot travel:
                               |                    |  done, with an error
                               |                    |
                               +--- its flight ended without its outcome, or the time of its
                                    next try has come

``done`` is final: later outcomes of the item are counted as repeats and dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import Protocol

from msgspec.structs import replace

from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Format, Report
from jetmap.wire.timing import ACK_WAIT

from .blame import VANISHED_LIMIT, Blame, Crashes, after_claim, after_crash, losses
from .flight import Flight, Piece, Quarantine, Returned, Settlement
from .intervals import IntervalSet
from .outcomes import Batch

_NOBODY: Mapping[str, float] = {}
Ranges = list[tuple[int, int]]  # Ranges of items, each from its first to behind its last.


class Seen(Protocol):
    """The items of a job that have their outcome in the store."""

    def ranges(self) -> Ranges:
        """Return those that are known."""
        ...

    async def read(self) -> Ranges:
        """Read the store, and return those that are there now."""
        ...


class Ledger:
    """The account of one map.

    Args:
        attempts: Workers that one item may kill.

    Attributes:
        attempts: As above.
        repeats: Number of reports that repeated, at least in part, outcomes already known.
        seen: Items of a job that have their outcome already, without a report to this process;
            None for a map whose outcomes come by reports alone.
    """

    def __init__(
        self,
        format: Format,
        attempts: int,
        seen: Seen | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.repeats = 0
        self.seen = seen
        self.flights: dict[int, Flight] = {}
        self.failed = 0
        self._format: Format = format
        self.attempts = attempts
        self._crashes = Crashes()
        self._pieces = Returned(format)
        self._suspects = Returned(format)
        self._quarantine = quarantine or Quarantine()
        self._seen = IntervalSet()
        for start, end in seen.ranges() if seen is not None else ():
            self._seen.add(start, end)
        self._number = 0
        self._waiting: list[tuple[float, int, Piece]] = []  # A heap: until when, and which item.

    @property
    def done(self) -> int:
        """Number of items that have their outcome."""
        return self._seen.size

    def is_done_before(self, index: int) -> bool:
        """Return whether every item before this one has its outcome."""
        return self._seen.covers(0, index)

    def are_done(self, start: int, count: int) -> bool:
        """Return whether each of ``count`` items has its outcome."""
        return self._seen.covers(start, start + count)

    def are_new(self, start: int, count: int) -> bool:
        """Return whether none of ``count`` items has its outcome."""
        return self._seen.missing(start, start + count) == [(start, start + count)]

    @property
    def has_pieces(self) -> bool:
        """Return whether items wait that may be sent again now."""
        if self._pieces.count:
            return True
        return self._suspects.count > 0 and self._quarantine.is_free

    @property
    def has_returned(self) -> bool:
        """Return whether items wait to be sent again, now or when no other suspect is out."""
        return self.returned_items > 0

    @property
    def returned_items(self) -> int:
        """Number of items that wait to be sent again."""
        return self._pieces.count + self._suspects.count

    @property
    def waiting_items(self) -> int:
        """Number of items that wait for the time of their next try."""
        return len(self._waiting)

    @property
    def next_try(self) -> float | None:
        """Time of the next try of an item that waits; None if none does."""
        return self._waiting[0][0] if self._waiting else None

    def postpone(self, report: Report, now: float) -> None:
        """Keep items that are to be sent once more until their time: they leave their chunk.

        A report about a chunk that has ended, or one that was taken in before, changes nothing.
        """
        flight = self.flights.get(report.number)
        if flight is None:
            return
        piece = flight.piece
        waits = {
            error.index: (error.detail or {}).get("wait", 0.0)
            for error in report.errors
            if piece.start <= error.index < flight.end and error.index not in piece.postponed
        }
        indices = [i for i in sorted(waits) if not self._seen.covers(i, i + 1)]
        offsets = [(i - piece.start, i - piece.start + 1) for i in indices]
        parts = arrays.select(piece.encoded, offsets, self._format) if offsets else []
        for index, items in zip(indices, parts, strict=True):
            single = Piece(index, 1, items, tries=piece.tries + 1)
            heappush(self._waiting, (now + waits[index], index, single))
        piece.postponed |= frozenset(waits)

    def resume(self, now: float) -> bool:
        """Put the items whose time has come among those to be sent; return whether there are."""
        before = self._pieces.count
        while self._waiting and self._waiting[0][0] <= now:
            _, index, piece = heappop(self._waiting)
            if not self._seen.covers(index, index + 1):
                self._pieces.put(piece)
        return self._pieces.count > before

    def next_piece(self, count: int | None = None) -> Piece:
        """Cut off the earliest items to send again, at most ``count``."""
        piece = self._pieces.pop(count) if self._pieces.count else self._suspects.pop(count)
        self._drop_seen()
        return piece

    def send(self, piece: Piece, offer: str, now: float) -> Flight:
        """Open a flight for a piece that goes out now, as a chunk with a number of its own."""
        self._number += 1
        attempt = 2 if piece.losses else 1
        flight = Flight(self._number, piece, offer, piece.seconds, now, now, attempt, first=now)
        self.flights[flight.number] = flight
        if piece.suspect:
            self._quarantine.enter(flight)
        return flight

    @property
    def chunks(self) -> int:
        """The number of the chunk that was sent last; they count from 1."""
        return self._number

    def close(self) -> None:
        """Free the quarantine from this map's chunks: nothing more happens to them."""
        for flight in self.flights.values():
            self._quarantine.leave(flight)

    def mark_seen(self, ranges: Iterable[tuple[int, int]]) -> list[Settlement]:
        """Record that these items have their outcomes in the store, though no report came."""
        new = [part for start, end in ranges for part in self._add_seen(start, end)]
        if not new:
            return []
        self.repeats += 1
        done = [f for f in self.flights.values() if self._is_settled(f, f.end)]
        for flight in done:
            self._end(flight)
        return [Settlement(ended=flight) for flight in done]

    def is_begun(self, flight: Flight) -> bool:
        """Return whether some items of this chunk have their outcome."""
        start, end = flight.piece.start, flight.end
        return self._seen.missing(start, end) != [(start, end)]

    def refuse(self, error: ErrorRecord) -> list[Batch]:
        """Fail an item that is never sent."""
        return self._fail(error.index, error)

    def accept(self, report: Report) -> Settlement:
        """Process a report. It may be late, repeated, or about a chunk that has ended."""
        settlement = Settlement(self._accept_outcomes(report))
        flight = self.flights.get(report.number)
        if flight is None:
            return settlement
        flight.confirmed = True
        if report.rest is not None:
            self._split_off(flight, report.rest.start)
        if report.final is not None:
            flight.final = report.final
        final = flight.final
        if final is not None and self._is_settled(flight, final.end):
            # Reports may overtake each other: the chunk ends when all its items are here.
            self._end(flight)
            settlement.ended = flight
            if final.crash is not None:
                blame = after_crash(flight.piece, final.crash, self._crashes, self.attempts)
                settlement.batches += self._carry_out(blame, flight.piece)
            elif final.end < flight.end:
                self._return(flight.piece)
        elif self._is_settled(flight, flight.end):
            self._end(flight)
            settlement.ended = flight
        elif settlement.batches:
            flight.seconds -= report.seconds
        return settlement

    def fail_all(self, flight: Flight, error: ErrorRecord) -> Settlement:
        """End a chunk that cannot travel: each of its items fails with this error."""
        self._end(flight)
        batches: list[Batch] = []
        for index in range(flight.piece.start, flight.end):
            record = ErrorRecord(index, error.kind, error.type, error.message)
            batches += self._fail(index, record)
        return Settlement(batches, flight)

    def claim(
        self,
        number: int,
        agent: str,
        host: str,
        now: float,
        *,
        is_again: bool = False,
        vanished: Mapping[str, float] = _NOBODY,
    ) -> Settlement | None:
        """Note that an agent holds a chunk. Returns None if the chunk is no longer wanted.

        The claim may show that too many agents have vanished with it. (An agent that cannot reach
        this process may drop a chunk silently and live on, or vanish later: then its claim is too
        old to count.)

        Args:
            is_again: Whether the chunk was delivered, or taken from the stream, before.
            vanished: When each agent that fell silent without a goodbye was missed.
        """
        flight = self.flights.get(number)
        if flight is None:
            return None
        if self._is_settled(flight, flight.end):
            self._end(flight)
            return Settlement(ended=flight)
        if is_again and not flight.claims and now - flight.first >= ACK_WAIT:
            flight.reclaimed = now
        flight.heard = now
        flight.confirmed = True
        flight.claims[agent] = now
        if (blame := after_claim(flight, vanished, self.attempts)) is None:
            flight.host = host
            return Settlement()
        self._end(flight)
        suspects = replace(flight.piece, losses=1, suspect=True)
        return Settlement(self._carry_out(blame, suspects), flight)

    def withdraw(self, flight: Flight, vanished: Mapping[str, float] = _NOBODY) -> None:
        """Take a chunk back: its items without an outcome are to be sent again."""
        self._end(flight)
        lost = losses(flight, vanished)
        if not flight.piece.suspect:
            lost = min(lost, VANISHED_LIMIT - 1)
        self._return(replace(flight.piece, losses=lost))

    def silent(self, now: float, patience: float) -> list[Flight]:
        """Return the chunks without a sign of life for ``patience`` seconds."""
        return [f for f in self.flights.values() if now - f.heard >= patience]

    def unconfirmed(self, now: float, patience: float) -> list[Flight]:
        """Return the chunks that nothing, not even an ack, confirmed for ``patience`` seconds."""
        return [
            f for f in self.flights.values() if not f.confirmed and now - f.published >= patience
        ]

    def credit(self, gap: float) -> None:
        """Allow for ``gap`` seconds in which this process could hear nothing."""
        for flight in self.flights.values():
            flight.heard += gap
            flight.claims = {agent: at + gap for agent, at in flight.claims.items()}
            if flight.reclaimed is not None:
                flight.reclaimed += gap

    # Inside

    def _split_off(self, flight: Flight, start: int) -> None:
        """Send the items from ``start`` on again: their chunk is held up by the item before."""
        piece = flight.piece
        keep = start - piece.start
        if not 0 < keep < piece.count:
            return
        ranges = [(0, keep), (keep, piece.count)]
        head, rest = arrays.select(piece.encoded, ranges, self._format)
        flight.piece = replace(piece, count=keep, items=head)
        flight.is_late = True
        more = replace(piece, start=start, count=piece.count - keep, items=rest)
        self._return(replace(more, postponed=frozenset()))

    def _is_settled(self, flight: Flight, end: int) -> bool:
        """Return whether each item of a chunk before ``end`` has its outcome or waits elsewhere."""
        piece = flight.piece
        if self._seen.covers(piece.start, end):
            return True
        return bool(piece.postponed) and not self._unsettled(piece, end)

    def _unsettled(self, piece: Piece, end: int) -> list[tuple[int, int]]:
        """Return the ranges of a piece's items, up to ``end``, that are still to be computed."""
        missing = self._seen.missing(piece.start, end)
        if not piece.postponed:
            return missing
        ranges = IntervalSet()
        for i in (i for a, b in missing for i in range(a, b) if i not in piece.postponed):
            ranges.add(i, i + 1)
        return ranges.ranges()

    def _end(self, flight: Flight) -> None:
        del self.flights[flight.number]
        self._quarantine.leave(flight)

    def _add_seen(self, start: int, end: int) -> list[tuple[int, int]]:
        new = self._seen.add(start, end)
        if new:
            self._drop_seen()
        return new

    def _accept_outcomes(self, report: Report) -> list[Batch]:
        start, count = report.start, report.count
        if not count:
            return []
        new = self._add_seen(start, start + count)
        if new == [(start, start + count)]:
            batches = [Batch(start, count, report.values, report.errors, report.tries)]
        else:
            self.repeats += 1
            ranges = [(a - start, b - start) for a, b in new]
            parts = [b""] * len(new)
            if new and not report.stored:
                parts = arrays.select(report.values, ranges, self._format)
            batches = [
                Batch(
                    a, b - a, values, [e for e in report.errors if a <= e.index < b], report.tries
                )
                for (a, b), values in zip(new, parts, strict=True)
            ]
        if report.errors:
            self.failed += sum(len(batch.errors) for batch in batches)
        return batches

    def _fail(self, index: int, error: ErrorRecord) -> list[Batch]:
        if not self._add_seen(index, index + 1):
            return []
        self.failed += 1
        return [Batch(index, 1, arrays.nulls(1, self._format), [error])]

    def _carry_out(self, blame: Blame, piece: Piece) -> list[Batch]:
        """Fail the item that is given up, and send the others of its piece again."""
        error = blame.error
        batches = self._fail(error.index, error) if error is not None else []
        self._return(piece, apart=blame.apart, alone=blame.alone)
        return batches

    def _return(self, piece: Piece, *, apart: range = range(0), alone: bool = False) -> None:
        """Put the items that have no outcome back, to be sent again.

        apart: items to put into chunks of their own. alone: put each item into a chunk of its own.
        """
        end = piece.start + piece.count
        if alone:
            apart = range(piece.start, end)
        ranges: list[tuple[int, int]] = []
        for a, b in self._unsettled(piece, end):
            first, last = max(a, apart.start), min(b, apart.stop)
            if first >= last:
                ranges.append((a, b))
                continue
            singles = [(i, i + 1) for i in range(first, last)]
            ranges += [(x, y) for x, y in ((a, first), *singles, (last, b)) if x < y]
        waiting = self._suspects if piece.suspect else self._pieces
        if ranges == [(piece.start, end)]:
            is_apart = piece.apart or piece.start in apart
            waiting.put(replace(piece, apart=is_apart) if is_apart else piece)
            return
        offsets = [(a - piece.start, b - piece.start) for a, b in ranges]
        parts = arrays.select(piece.encoded, offsets, self._format) if ranges else []
        for (a, b), items in zip(ranges, parts, strict=True):
            part = replace(piece, start=a, count=b - a, items=items, postponed=frozenset())
            part.apart = piece.apart or a in apart
            waiting.put(part)

    def _drop_seen(self) -> None:
        """Keep the first waiting piece free of items whose outcomes have come late."""
        for waiting in (self._pieces, self._suspects):
            while waiting and self._seen.missing(*waiting.first) != [waiting.first]:
                self._return(waiting.pop())
