"""Longer chunks for items that cost alike: how well they are predicted, and how they are cut then.
No I/O, no clock.

Near the end of a map each chunk more costs CPU (``CHUNK_COST``), and each chunk fewer lets cores
idle that have finished before others. How long they idle depends on how well the durations of
chunks are predicted, so this is measured, and the sum of both is kept small.
"""

from __future__ import annotations

from math import ceil, inf, log, sqrt

# Seconds of CPU that a chunk costs beside its items: broker, dispatcher, agent, worker, and what
# they take from each other's caches.
CHUNK_COST = 0.002
# Deviation of chunks from their predicted durations, as a share of these, above which chunks are
# cut as if nothing was known of it.
STEADY = 0.3
# The least deviation that is counted on: a core may become slower at any time.
LEAST_DEVIATION = 0.1
REPORTS = 4.0  # Results, the older ones counted less, that tell the deviation.

_DECAY = 0.9  # Factor by which each result reduces the weight of those before it.
_AGREES = 1.25  # Factor by which the cost of an item may change within a round.


class Deviation:
    """The distance of chunks from the durations that their numbers of items predict.

    Seconds are predicted as a multiple of the items, by least squares over the decayed results. The
    deviation is the root of the mean square of what is left, as a share of the root of the mean
    square of the predictions: long chunks count most, as they do when a map ends.
    """

    # (Of the class: few of the maps that have one ever learn.)
    _reports = 0.0
    _items = _both = _seconds = 0.0  # Sums of squares, and of products.

    def learn(self, items: int, seconds: float) -> None:
        """Learn from a result of ``items`` items that computed for ``seconds``."""
        self._reports = self._reports * _DECAY + 1.0
        self._items = self._items * _DECAY + items * items
        self._both = self._both * _DECAY + items * seconds
        self._seconds = self._seconds * _DECAY + seconds * seconds

    @property
    def is_known(self) -> bool:
        return self._reports >= REPORTS

    @property
    def share(self) -> float:
        """The deviation as a share of the durations; infinite while too little is known."""
        if not self.is_known:
            return inf
        predicted = self._both**2
        if not predicted:  # Too small for a float.
            return 0.0
        return sqrt(max(0.0, self._seconds * self._items / predicted - 1.0))


def round_seconds(rest: float, cores: float, deviation: float) -> float:
    """Return the seconds that the next chunk of each core should take.

    If the rest is cut into one chunk a core, the last core is expected to end ``spread * rest``
    after the mean, where ``spread`` is the deviation times what the largest of as many normal
    variables reaches. If ``rest / (1 + spread)`` is cut first and what is left then, cores that
    were late take less of it, and at most what is left of it can be spread. That saves
    ``spread * rest / (1 + spread)`` and costs each core a chunk more.

    Args:
        rest: Seconds of compute that each core still has to do.
        deviation: Of a chunk's duration from its prediction, as a share.
    """
    spread = max(LEAST_DEVIATION, deviation) * sqrt(2 * log(max(2.0, cores)))
    if spread * rest / (1 + spread) <= CHUNK_COST:
        return rest
    return rest / min(2.0, 1 + spread)


class Rounds:
    """Cut a map in rounds of one chunk for each core, all of one length.

    Cores that have begun a round together end it together, as far as the durations are predicted;
    so the last round, which takes all the rest, leaves no core idle for long.
    """

    _left = 0  # Chunks of the round in progress that are not cut yet.
    _items = 0  # Items of each.
    _each = 0.0  # Seconds of one item when it began.

    def count(
        self,
        rest: int,
        each: float,
        cores: float,
        deviation: float,
        *,
        longest: float,
        shortest: float,
    ) -> int:
        """Return the number of items of the next chunk.

        Args:
            rest: Items that are not cut yet.
            each: Seconds of one item.
            cores: Cores for this map, more than one.
            deviation: Of a chunk's duration from its prediction, as a share.
            longest, shortest: Seconds that chunks may take.
        """
        agrees = self._each <= each * _AGREES and each <= self._each * _AGREES
        # Rounded up, a chunk may be longer than ``longest`` by half an item.
        if not (self._left and agrees and (self._items - 0.5) * each <= longest * _AGREES):
            size = ceil(cores)
            seconds = rest * each / cores
            wanted = min(longest, max(shortest, round_seconds(seconds, cores, deviation)))
            if seconds <= wanted:
                self._items = max(ceil(rest / size), round(shortest / each))
            else:
                self._items = max(1, round(wanted / each))
            self._left, self._each = size, each
        self._left -= 1
        return max(1, min(self._items, rest))
