"""A set of item indices, kept as disjoint ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class IntervalSet:
    """Half-open ranges [a, b), sorted and merged; a list that fills up in order stays one range."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.size = 0

    def __len__(self) -> int:
        """Number of ranges."""
        return len(self._starts)

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add a range. Returns the parts of it that were not in the set."""
        if start >= end:
            return []
        last = self._ends[-1] if self._ends else -1
        if start >= last:  # Behind all others, as most are.
            if start == last:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)
            self.size += end - start
            return [(start, end)]
        new = self.missing(start, end)
        # Every range that touches [start, end] is merged into one.
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        for first, behind in new:
            self.size += behind - first
        return new

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that are not in the set."""
        gaps = []
        at = bisect_right(self._ends, start)
        while start < end:
            if at == len(self._starts) or self._starts[at] >= end:
                gaps.append((start, end))
                break
            if start < self._starts[at]:
                gaps.append((start, self._starts[at]))
            start = self._ends[at]
            at += 1
        return gaps

    def covers(self, start: int, end: int) -> bool:
        """Return whether the whole range is in the set."""
        at = bisect_right(self._ends, start)
        if at == len(self._starts):
            return start >= end
        return start >= end or self._starts[at] <= start < end <= self._ends[at]

    def ranges(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._ends, strict=True))
