"""The cost of a function's items, learnt from results, and the size of chunks. No clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from jetmap.settings import ChunkSettings
from jetmap.wire.budget import Budget
from jetmap.wire.counts import LogBins

from .rounds import STEADY, Deviation, Rounds

_DECAY = 0.9  # Factor by which each result reduces the weight of those before it.
# Chunk durations that a map may take beyond 1.1 times the time of single items, handed out in order
# to idle cores: two in which a chunk whose items turn dear keeps those not begun, one for a guess
# that was wrong from the start, one for a list of unknown length.
SLACK = 4
_STEADY_REPORTS = 4.0  # Results, the older ones counted less, that show whether items cost alike.
_STEADY_SPREAD = 1.5  # Mean square of the results' costs over the square of their mean, at most.
_RECENT = 2  # Items of earlier results that count beside each item of the latest, within one map.


class Cost:
    """Seconds and bytes of one item of a function.

    A decayed ratio of sums: few slow items among many fast ones weigh as much as they take.

    Attributes:
        items_done: Items in results so far.
        items_failed: Items without a value so far.
        seconds_done: Their seconds of compute.
        bins: Seconds of an item; items that one result covers count as its mean.
        deviation: Of chunks from their predicted durations, over all maps.
    """

    def __init__(self) -> None:
        self.items_done = self.items_failed = 0
        self.seconds_done = 0.0
        self.bins = LogBins()
        self.deviation = Deviation()
        self._seconds = self._items = 0.0
        self._value_bytes = 0.0
        self._item_bytes = self._cut_items = 0.0
        self._reports = self._rates = self._squares = 0.0

    @property
    def is_steady(self) -> bool:
        """Return whether the items of the latest results, of any map, cost about the same."""
        if self._reports < _STEADY_REPORTS:
            return False
        return self._squares * self._reports <= _STEADY_SPREAD * self._rates**2

    @property
    def is_known(self) -> bool:
        return self._items > 0

    @property
    def seconds(self) -> float:
        """Seconds of one item; 0 while nothing is known."""
        return self._seconds / self._items if self._items else 0.0

    @property
    def bytes(self) -> float:
        """Bytes of one item or its value, whichever is larger; 0 while nothing is known."""
        return max(self.item_bytes, self.value_bytes)

    @property
    def item_bytes(self) -> float:
        return self._item_bytes / self._cut_items if self._cut_items else 0.0

    @property
    def value_bytes(self) -> float:
        return self._value_bytes / self._items if self._items else 0.0

    def learn(self, items: int, seconds: float, value_bytes: int) -> None:
        """Learn from a result of ``items`` items that computed for ``seconds``."""
        if items <= 0:
            return
        self._seconds = self._seconds * _DECAY + seconds
        self._items = self._items * _DECAY + items
        self._value_bytes = self._value_bytes * _DECAY + value_bytes
        self.items_done += items
        self.seconds_done += seconds
        rate = seconds / items
        self.bins.add(rate, items)
        self.deviation.learn(items, seconds)
        self._reports = self._reports * _DECAY + 1.0
        self._rates = self._rates * _DECAY + rate
        self._squares = self._squares * _DECAY + rate * rate

    def cut(self, items: int, size: int) -> None:
        """Record that a chunk of ``items`` items took ``size`` bytes."""
        self._item_bytes = self._item_bytes * _DECAY + size
        self._cut_items = self._cut_items * _DECAY + items


class Pace:
    """Seconds of one item in one map, for cutting.

    Until the map has results of its own, the function's cost is a guess: the items may be other
    ones, or the keyword parameters, or the time of day. From then on only the map's own results
    count, the latest most.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._seconds = self._items = 0.0
        self.is_sure = False  # Whether this map's results agree with the guess so far.
        self._deviation = Deviation()
        self._is_refuted = False

    @property
    def deviation(self) -> float | None:
        """Deviation of chunks from their predicted durations, as a share; None if it is too large,
        or not known.

        Until the map has results of its own, that of the function's other maps counts; never
        again once a chunk was late.
        """
        if self._deviation.is_known:
            if not self.is_sure:
                return None
            share = self._deviation.share
        elif self._is_refuted or not self._cost.is_steady:
            return None
        else:
            share = self._cost.deviation.share
        return share if share < STEADY else None

    @property
    def is_known(self) -> bool:
        return self._items > 0 or self._cost.is_known

    @property
    def seconds(self) -> float:
        """Seconds of one item; 0 while nothing is known."""
        return self._seconds / self._items if self._items else self._cost.seconds

    @property
    def bytes(self) -> float:
        return self._cost.bytes

    def learn(self, items: int, seconds: float) -> None:
        """Learn from a result of ``items`` items that computed for ``seconds``."""
        if items <= 0:
            return
        kept = min(_DECAY, _RECENT * items / self._items) if self._items else 0.0
        self._seconds = self._seconds * kept + seconds
        self._items = self._items * kept + items
        self._deviation.learn(items, seconds)

    def refute(self, items: int, seconds: float) -> None:
        """Learn from a late chunk: ``items`` items computed for at least ``seconds``.

        If that is dearer than was thought, it replaces all earlier results.
        """
        self.is_sure = False
        self._is_refuted = True
        self._deviation = Deviation()
        if items > 0 and seconds > items * self.seconds:
            self._seconds, self._items = seconds, float(items)


# Seconds of the first chunk of a map whose reader waits for its first results.
FIRST_SECONDS = 0.005

# Chunks that the cores of a pool end each second, at most. Chunks of a larger pool are longer, so
# that the load of brokers and dispatchers does not grow with the pool; a newcomer waits no longer
# for a core, because more of them come free.
CHUNKS_A_SECOND = 4_000

LONGEST = 2.0  # Durations of a usual chunk that the longest take.
SOLE = 4.0  # The same, if they end as soon as somebody else waits for a core.
LONG = 1.5  # The longest others, times this, from which on they do. Rounding makes up to 1.25.
MOST_STEADY_ITEMS = 65_536  # Items of a chunk whose items cost alike.

_DEFAULT = ChunkSettings()


@dataclass(frozen=True)
class Cutting:
    """The rules by which chunks are cut: by time, then by bytes."""

    seconds: float = _DEFAULT.chunk_seconds  # Seconds of compute that a chunk aims at.
    least: float = _DEFAULT.chunk_min_seconds  # Seconds of the shortest chunks, near a map's end.
    max_bytes: int = _DEFAULT.chunk_bytes  # Bytes of a chunk's items.
    max_items: int = 16_384  # Limits a worker's memory if values turn out far larger than before.
    round_trip: float = 0.0  # Seconds from an agent to its broker and back.
    cores: int = 1  # Cores of the pool.
    # Seconds of a chunk that nobody waits for; 0 if an agent of the pool cannot end it on request.
    sole_seconds: float = 0.0

    @classmethod
    def of(cls, chunks: ChunkSettings) -> Cutting:
        return cls(chunks.chunk_seconds, chunks.chunk_min_seconds, chunks.chunk_bytes)

    def fitted(self, cores: int, round_trip: float, *, hurries: bool = False) -> Cutting:
        """Return the rules for a pool of this size and distance.

        hurries: whether all its agents end chunks early on request.
        """
        return replace(
            self,
            seconds=max(self.seconds, cores / CHUNKS_A_SECOND),
            round_trip=round_trip,
            cores=cores,
            sole_seconds=SOLE * self.seconds if hurries else 0.0,
        )

    @cached_property
    def longest(self) -> float:
        """Seconds of the longest chunks, of a map that is alone and whose items cost alike.

        A newcomer waits for the first core that comes free: on average, a chunk's duration over
        the cores and one. So it waits no longer than on two cores.
        """
        return self.seconds * min(LONGEST, max(1.0, (self.cores + 1) / 3))

    @cached_property
    def sole(self) -> float:
        """Seconds of the longest chunks of a map that has the pool to itself, if its items cost
        alike and its caller waits for all of them.

        When somebody else comes, they end with the item in progress.
        """
        return max(self.longest, self.sole_seconds)

    def is_long(self, items: int, seconds: float) -> bool:
        """Return whether a chunk of a map that has the pool to itself takes so long that others
        would wait for it, and agents can end it early.
        """
        return items > 1 and seconds > LONG * self.longest and self.sole > self.longest

    def duration(self, cost: Cost | Pace, remaining: int | None, cores: float) -> float:
        """Return the seconds that the next chunk should take.

        Guided self-scheduling (Polychronopoulos and Kuck, 1987): at most the rest over twice the
        cores, so that all cores finish together. On one core, or a share of it, nothing is gained
        by that.

        Args:
            remaining: Items; None if unknown.
            cores: Cores for this map, or its share of them beside others.
        """
        if remaining is None or not cost.is_known:
            return self.seconds
        rest = remaining * cost.seconds / (2 * cores if cores > 1 else 1)
        if self.round_trip:
            rest = max(rest, self.round_trip)  # A core may wait that long for its next chunk.
        return min(self.seconds, max(self.least, rest))

    def estimate(self, cost: Cost) -> float:
        """Return the seconds of one item.

        An item of an unknown function counts as a whole chunk, so that a backlog is never nothing.
        """
        return cost.seconds if cost.is_known else self.seconds

    def budget(self, estimate: float, items: int, *, is_sure: bool) -> Budget:
        """Return the budget of a chunk of ``items`` items that is expected to take ``estimate``
        seconds.

        Near a map's end, other cores wait for the items that the chunk has not begun. An estimate
        that is a guess is checked from the first item on.
        """
        least = 5 * self.least
        if is_sure:
            allowed = min(2 * estimate, estimate + self.longest)
            return Budget(min(2 * self.sole, max(least, allowed)))
        return Budget(least, 2 * min(estimate, self.longest) / max(1, items))

    def first(self, cost: Pace) -> int:
        """Return the number of items of a first chunk whose results are waited for, at most."""
        return max(1, int(FIRST_SECONDS / cost.seconds)) if cost.seconds else self.max_items

    def count(self, cost: Cost | Pace, remaining: int | None, cores: float, batch: int = 1) -> int:
        """Return the number of items of the next chunk: one batch, while their cost is not known.

        batch: items that the function takes at once.
        """
        if batch > 1:
            return self._batches(cost, remaining, cores, batch)
        if remaining == 1 or not cost.is_known:
            return 1
        seconds = max(cost.seconds, 1e-7)
        count = max(1, round(self.duration(cost, remaining, cores) / seconds))
        count = min(count, self._most(cost, self.max_items))
        return count if remaining is None else max(1, min(count, remaining))

    def round_count(
        self,
        rounds: Rounds,
        pace: Pace,
        remaining: int,
        cores: float,
        *,
        alone: bool,
        sole: bool = False,
    ) -> int | None:
        """Return the number of items of the next chunk of a map that is cut in rounds; None if it
        is not: if chunks are not predicted well enough, or far cores wait for their chunks.

        alone: whether the map is the only one of its dispatcher that has chunks out.
        sole: whether it may have long chunks; then it is alone, and its chunks are predicted.
        """
        deviation = pace.deviation
        if deviation is None or cores <= 1 or not pace.seconds or self.round_trip:
            return None
        longest = self.seconds
        if alone and pace.is_sure:
            longest = self.sole if sole else self.longest
        count = rounds.count(
            remaining,
            max(pace.seconds, 1e-7),
            cores,
            deviation,
            longest=longest,
            shortest=min(longest, self.least),
        )
        return min(count, self._most(pace, MOST_STEADY_ITEMS))

    def _most(self, cost: Cost | Pace, items: int) -> int:
        """Return the number of items of a chunk that its bytes allow, at most ``items``."""
        return min(items, max(1, int(self.max_bytes / cost.bytes))) if cost.bytes > 0 else items

    def _batches(self, cost: Cost | Pace, remaining: int | None, cores: float, batch: int) -> int:
        """Return the number of items of a chunk of whole batches, or of what is left for one."""
        rest = self.max_items if remaining is None else remaining
        most = int(self.max_bytes / cost.bytes) if cost.bytes > 0 else rest
        if not cost.is_known or rest <= batch:
            return max(1, min(batch, most, rest))
        count = round(self.duration(cost, remaining, cores) / max(cost.seconds, 1e-7))
        count = min(count, self.max_items, most)
        return max(1, min(max(count - count % batch, min(batch, most)), rest))
