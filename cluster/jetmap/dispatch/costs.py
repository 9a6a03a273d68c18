"""What an item of a function costs, learnt from results, and how long a chunk shall be."""

from __future__ import annotations

from dataclasses import dataclass

from jetmap.wire.budget import Budget

_DECAY = 0.9  # Of what earlier results count, with each later one.
# Chunk durations that a map takes at most beside 1.1 times what single items would, handed out in
# order to idle cores: two for which a chunk whose items turn dear keeps those it has not begun, one
# for a guess that was wrong from the start, one for a list whose end nobody knew.
SLACK = 4
_RECENT = 2  # Times its own items: what a result leaves of those before it, within one map.


class Cost:
    """Seconds and bytes of one item: a decayed ratio of sums, so that few slow items among
    many fast ones weigh what they take."""

    def __init__(self) -> None:
        self._seconds = self._items = 0.0
        self._value_bytes = 0.0
        self._item_bytes = self._cut_items = 0.0

    @property
    def is_known(self) -> bool:
        return self._items > 0

    @property
    def seconds(self) -> float:
        """Of one item; 0 while nothing is known."""
        return self._seconds / self._items if self._items else 0.0

    @property
    def bytes(self) -> float:
        """Of one item or its value, whichever is larger; 0 while nothing is known."""
        item = self._item_bytes / self._cut_items if self._cut_items else 0.0
        value = self._value_bytes / self._items if self._items else 0.0
        return max(item, value)

    def learn(self, items: int, seconds: float, value_bytes: int) -> None:
        """A result of ``items`` items that computed for ``seconds``."""
        if items <= 0:
            return
        self._seconds = self._seconds * _DECAY + seconds
        self._items = self._items * _DECAY + items
        self._value_bytes = self._value_bytes * _DECAY + value_bytes

    def cut(self, items: int, size: int) -> None:
        """A chunk of ``items`` items took ``size`` bytes."""
        self._item_bytes = self._item_bytes * _DECAY + size
        self._cut_items = self._cut_items * _DECAY + items


class Pace:
    """Seconds of one item in one map, as far as cutting is concerned.

    Until the map has results of its own, its function's cost is a guess: the items may be other
    ones, the keyword parameters, the time of day. From then on only the map's own results count,
    the latest most.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._seconds = self._items = 0.0
        self.is_sure = False  # Whether this map's results agree with the guess so far.

    @property
    def is_known(self) -> bool:
        return self._items > 0 or self._cost.is_known

    @property
    def seconds(self) -> float:
        """Of one item; 0 while nothing is known."""
        return self._seconds / self._items if self._items else self._cost.seconds

    @property
    def bytes(self) -> float:
        return self._cost.bytes

    def learn(self, items: int, seconds: float) -> None:
        """Take in a result of ``items`` items that computed for ``seconds``."""
        if items <= 0:
            return
        kept = min(_DECAY, _RECENT * items / self._items) if self._items else 0.0
        self._seconds = self._seconds * kept + seconds
        self._items = self._items * kept + items

    def refute(self, items: int, seconds: float) -> None:
        """Take in a chunk that was late: ``items`` items computed for ``seconds`` at least.

        What was thought before is wrong, if that is dearer.
        """
        self.is_sure = False
        if items > 0 and seconds > items * self.seconds:
            self._seconds, self._items = seconds, float(items)


@dataclass(frozen=True)
class Cutting:
    """How chunks are cut: by time, then by bytes.

    seconds: what a chunk aims at. least: where tapering ends. max_bytes: of a chunk's items.
    max_items: so that values far larger than those before do not fill a worker.
    """

    seconds: float = 0.05
    least: float = 0.002
    max_bytes: int = 262_144
    max_items: int = 16_384

    def duration(self, cost: Cost | Pace, remaining: int | None, cores: int) -> float:
        """Seconds that the next chunk shall take.

        Guided self-scheduling (Polychronopoulos and Kuck, 1987): at most the rest over twice
        the cores, so that all cores finish together. remaining: None if nobody knows.
        """
        if remaining is None or not cost.is_known:
            return self.seconds
        rest = remaining * cost.seconds / (2 * max(1, cores))
        return min(self.seconds, max(self.least, rest))

    def estimate(self, cost: Cost) -> float:
        """Seconds that an item takes; of an unknown function as many as a chunk aims at, so that
        what waits never counts as nothing."""
        return cost.seconds if cost.is_known else self.seconds

    def budget(self, estimate: float, items: int, *, is_sure: bool) -> Budget:
        """What a chunk of ``items`` items may take that was to take ``estimate`` seconds.

        Near a map's end other cores wait for what it has not begun. A guess is checked from the
        first item on.
        """
        least = 5 * self.least
        if is_sure:
            return Budget(min(2 * self.seconds, max(least, 2 * estimate)))
        return Budget(least, 2 * min(estimate, self.seconds) / max(1, items))

    def count(self, cost: Cost | Pace, remaining: int | None, cores: int) -> int:
        """Items of the next chunk: one, while nothing is known of what they take."""
        if not cost.is_known:
            return 1
        seconds = max(cost.seconds, 1e-7)
        count = max(1, round(self.duration(cost, remaining, cores) / seconds))
        count = min(count, self.max_items)
        if cost.bytes > 0:
            count = min(count, max(1, int(self.max_bytes / cost.bytes)))
        return count if remaining is None else max(1, min(count, remaining))
