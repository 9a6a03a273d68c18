"""An index of stored outcomes. The first outcome of an item in stream order counts."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Container, Sequence
from operator import itemgetter
from typing import NamedTuple

from jetmap.dispatch.intervals import IntervalSet
from jetmap.wire import subjects
from jetmap.wire.messages import Report

# Ranges ahead that are considered for reading together.
LOOK = 256
# Bytes of an empty index.
INDEX_BYTES = 2_000
# Bytes of an error record, roughly, without its texts.
ERROR_BYTES = 200


class OutcomeRange(NamedTuple):
    """Items ``[start, end)``, whose outcomes are in the message with sequence number ``seq``."""

    start: int
    end: int
    seq: int


class OutcomeIndex:
    """An index of a job's stored outcomes: ranges of items and sequence numbers, without values.

    Every message of the job must be added in stream order; every reader then has the same index.
    A message takes some 70 bytes. last: the highest sequence number added. done: items with an
    outcome. failures: those whose outcome is an error. tries: of each item that was to be sent once
    more, how often it was tried, and for how many seconds it was to wait then.

    An item that failed in one run has no outcome in the next until it has run there; all others
    keep theirs. So every item has one outcome in each run.

    Args:
        run: The run of the job that is indexed.
        ends: The sequence number of the last outcome of each run before it.

    Attributes:
        until: The last sequence number that counts, once a later run has begun; None: all count.
        is_outdated: Whether messages that it has were removed, so that no reader may begin with it.
    """

    def __init__(self, run: int = 1, ends: Sequence[int] = ()) -> None:
        self.last = 0
        self.until: int | None = None
        self.is_outdated = False
        self.failures = IntervalSet()
        self.tries: dict[int, tuple[int, float]] = {}
        self._run = run
        self._run_ends = ends
        self._items = IntervalSet()
        self._adding = 1  # The run of the messages that are added now.
        self._passed = IntervalSet()  # Items that failed in that run, if it is an earlier one.
        # By message, in stream order. _bytes has one more: those of all before it.
        self._seqs = array("q")
        self._from = array("q")
        self._to = array("q")
        self._done = array("q")
        self._failed = array("q")
        self._bytes = array("q", (0,))
        # By range, in input order. _owners: the message's position in those above.
        self._starts = array("q")
        self._ends = array("q")
        self._owners = array("q")

    @property
    def done(self) -> int:
        return self._items.size

    @property
    def failed(self) -> int:
        """Items whose outcome is an error."""
        return self.failures.size

    @property
    def messages(self) -> int:
        """Messages added."""
        return len(self._seqs)

    @property
    def stored(self) -> int:
        """Bytes of the store that the messages take, roughly."""
        return self._bytes[-1]

    @property
    def memory(self) -> int:
        """Bytes of memory that the index takes, roughly."""
        ours = 48 * len(self._seqs) + 24 * len(self._starts) + 200 * len(self.tries)
        return INDEX_BYTES + ours + 64 * len(self.failures)

    def add(self, seq: int, report: Report) -> list[tuple[int, int]]:
        """Add a message, and return the ranges of items that it wins.

        Adding a message again changes nothing and returns the same ranges.
        """
        if seq <= self.last:
            return self.won(seq)
        if self.until is not None and seq > self.until:
            return []
        run = subjects.run_of(report.map)
        if run == self._run:
            won = self._items.add(report.start, report.start + report.count)
        else:
            won = self._carried(seq, run, report)
        owner = len(self._seqs)
        for a, b in won:
            at = bisect_left(self._starts, a)
            self._starts.insert(at, a)
            self._ends.insert(at, b)
            self._owners.insert(at, owner)
        size = len(report.values)
        for error in report.errors:
            if not report.count and error.detail:  # Not an outcome: see ``ErrorRecord``.
                if run == self._run:
                    self.tries[error.index] = (error.detail["tries"], error.detail["wait"])
            elif _holds(won, error.index):
                self.failures.add(error.index, error.index + 1)
            size += ERROR_BYTES + len(error.message) + len(error.traceback or "")
        self.last = seq
        self._seqs.append(seq)
        self._from.append(won[0][0] if won else 0)
        self._to.append(won[-1][1] if won else 0)
        self._done.append(self.done)
        self._failed.append(self.failed)
        self._bytes.append(self._bytes[-1] + size)
        return won

    def _carried(self, seq: int, run: int, report: Report) -> list[tuple[int, int]]:
        """Return the ranges that a message of another run wins: of an earlier one, its values."""
        if run > self._run or run < self._adding or seq > self._run_ends[run - 1]:
            return []
        if run > self._adding:
            self._adding, self._passed = run, IntervalSet()
        failed = sorted({error.index for error in report.errors})
        won: list[tuple[int, int]] = []
        for start, end in self._items.missing(report.start, report.start + report.count):
            for a, b in self._passed.missing(start, end):
                for index in failed[bisect_left(failed, a) : bisect_left(failed, b)]:
                    self._passed.add(index, index + 1)
                    if a < index:
                        won.append((a, index))
                    a = index + 1
                if a < b:
                    won.append((a, b))
        for a, b in won:
            self._items.add(a, b)
        return won

    def won(self, seq: int) -> list[tuple[int, int]]:
        """Return the ranges of items that a message has won, in order."""
        owner = self._position(seq)
        if owner is None:
            return []
        at = bisect_left(self._starts, self._from[owner])
        until = bisect_left(self._starts, self._to[owner], at)
        return [
            (self._starts[i], self._ends[i]) for i in range(at, until) if self._owners[i] == owner
        ]

    def has(self, seq: int) -> bool:
        """Return whether a message was added."""
        return self._position(seq) is not None

    def won_until(self, seq: int) -> int:
        """Return the end of the last range that a message has won; 0 if it has won none."""
        owner = self._position(seq)
        return 0 if owner is None else self._to[owner]

    def counts_at(self, seq: int) -> tuple[int, int]:
        """Return ``done`` and ``failed`` after this message."""
        at = bisect_right(self._seqs, seq) - 1
        return (self._done[at], self._failed[at]) if at >= 0 else (0, 0)

    def at(self, item: int) -> OutcomeRange | None:
        """Return the range and message with an item's outcome; None if it has none yet."""
        at = bisect_right(self._starts, item) - 1
        if at < 0 or self._ends[at] <= item:
            return None
        return OutcomeRange(self._starts[at], self._ends[at], self._seqs[self._owners[at]])

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of items that have an outcome."""
        return self._items.ranges()

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges within ``[start, end)`` that have no outcome."""
        return self._items.missing(start, end)

    def covers(self, start: int, end: int) -> bool:
        """Return whether every item of ``[start, end)`` has an outcome."""
        return self._items.covers(start, end)

    def window(
        self, item: int, until: int, have: Container[int], max_bytes: int, max_messages: int
    ) -> tuple[int, int]:
        """Choose the messages to read together with the one that holds ``item``.

        These hold later items, before ``until``, are stored near it, and are not in ``have``
        (sequence numbers). ``item`` must have an outcome. Returns the first message's sequence
        number, and the number of messages.
        """
        at = bisect_right(self._starts, item) - 1
        own = self._owners[at]
        stop = min(at + LOOK, bisect_left(self._starts, until, at))
        near = {own}
        size = self._size(own, own)
        for i in range(at + 1, stop):
            other = self._owners[i]
            if other not in near and self._seqs[other] not in have:
                size += self._size(other, other)
                # Messages read too early would be dropped before they are needed.
                if size > max_bytes:
                    break
                near.add(other)
        wanted = sorted(near - {own})
        split = bisect_left(wanted, own)
        low = high = own

        def worth(low: int, high: int, before: int, behind: int) -> bool:
            """Return whether the run from low to high is small and mostly wanted."""
            if high - low >= max_messages or self._size(low, high) > max_bytes:
                return False
            return self._size(before + 1, behind - 1) <= max_bytes // 8

        for other in wanted[split:]:
            if not worth(low, other, high, other):
                break
            high = other
        for other in reversed(wanted[:split]):
            if not worth(other, high, other, low):
                break
            low = other
        return self._seqs[low], high - low + 1

    def _size(self, first: int, last: int) -> int:
        """Return the bytes of the messages from position ``first`` to ``last``, both included."""
        return self._bytes[last + 1] - self._bytes[first]

    def _position(self, seq: int) -> int | None:
        at = bisect_left(self._seqs, seq)
        return at if at < len(self._seqs) and self._seqs[at] == seq else None


def _holds(ranges: list[tuple[int, int]], item: int) -> bool:
    """Return whether one of these ranges, which are in order, holds an item."""
    at = bisect_right(ranges, item, key=itemgetter(0)) - 1
    return at >= 0 and item < ranges[at][1]


class OutcomeIndexes:
    """Least-recently-used cache of indexes, limited to ``max_bytes``.

    The most recent index stays, whatever its size, so that each page of a large job does not
    start from the beginning.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._indexes: OrderedDict[tuple[str, int], OutcomeIndex] = OrderedDict()

    def __contains__(self, job: str) -> bool:
        return any(name == job for name, _ in self._indexes)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(index.memory for index in self._indexes.values())

    def get(self, job: str, run: int = 1, ends: Sequence[int] = ()) -> OutcomeIndex:
        """Return the index of a run of a job, which its readers share and extend."""
        index = self._indexes.pop((job, run), None)
        if index is None or index.is_outdated:
            index = OutcomeIndex(run, ends)
        self._indexes[job, run] = index
        size = self.size
        while size > self._max_bytes and len(self._indexes) > 1:
            _, oldest = self._indexes.popitem(last=False)
            size -= oldest.memory
        return index

    def drop(self, job: str) -> None:
        for key in [key for key in self._indexes if key[0] == job]:
            del self._indexes[key]
