"""What an item of a function costs, learnt from results, and how long a chunk shall be."""

from __future__ import annotations

from dataclasses import dataclass

_DECAY = 0.9  # Of what earlier results count, with each later one.


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

    def duration(self, cost: Cost, remaining: int | None, cores: int) -> float:
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

    def budget(self, estimate: float) -> float:
        """Seconds after which a worker hands back what it has not begun of a chunk that was to
        take ``estimate`` (0: nobody knows): near a map's end another core waits for it."""
        if estimate <= 0:
            return 2 * self.seconds
        return min(2 * self.seconds, max(5 * self.least, 2 * estimate))

    def count(self, cost: Cost, remaining: int | None, cores: int) -> int:
        """Items of the next chunk: one, while nothing is known of what they take."""
        if not cost.is_known:
            return 1
        seconds = max(cost.seconds, 1e-7)
        count = max(1, round(self.duration(cost, remaining, cores) / seconds))
        count = min(count, self.max_items)
        if cost.bytes > 0:
            count = min(count, max(1, int(self.max_bytes / cost.bytes)))
        return count if remaining is None else max(1, min(count, remaining))
