"""The number of chunks that a dispatcher keeps in flight. No I/O, no clock."""

from __future__ import annotations

LOW, HIGH = 0.5, 1.5  # Chunks a core that wait at the broker: the band to steer for.
DECREASE = 0.15  # Chunks that each result takes off the window above that band.
BACKOFF = 0.7  # Part of the chunks in flight that the window keeps after a refusal.


class Window:
    """A window steered by the broker's backlog, which every delivery carries.

    The backlog is exact and shared by all dispatchers, so together they keep about one chunk a core
    waiting. (Additive increase and decrease on queue length, as in TCP Vegas, but on the queue
    itself and not on times: by times, a dispatcher that never saw an empty queue would get less.)
    """

    def __init__(self, size: float = 2.0) -> None:
        self.size = size
        self.in_flight = 0
        self.is_fresh = True
        self._is_fixed = False

    def fix(self, cores: int) -> None:
        """Keep a chunk for each core and one that waits, from now on: the pool has no other
        dispatcher.
        """
        self.size, self.is_fresh, self._is_fixed = 2.0 * cores, False, True

    def open(self, cores: int) -> None:
        """Widen the window before the first chunk to one for each core: long items would wait
        otherwise.
        """
        self.is_fresh = False
        self.size = max(self.size, float(cores))

    def on_idle(self, cores: int) -> None:
        """Make room for one chunk for each of these cores, which found the queue empty.

        Results steer too late for them: while all chunks out are long, none comes for minutes.
        """
        if not self._is_fixed:
            self.size = max(self.size, float(self.in_flight + cores))

    @property
    def has_room(self) -> bool:
        return self.in_flight < int(self.size)

    def on_sent(self) -> None:
        self.in_flight += 1

    def on_refused(self) -> None:
        """Shrink: the broker has no room even for the chunks that are out."""
        if not self._is_fixed:
            self.size = max(1.0, min(self.size, float(self.in_flight)) * BACKOFF)

    def on_ended(self) -> None:
        self.in_flight = max(0, self.in_flight - 1)

    def steer(self, pending: int, cores: int, weight: float = 1.0) -> None:
        """Adjust the size after a result.

        Sizes settle in proportion to how fast they grow, as those of weighted TCPs do (MulTCP,
        Crowcroft and Oechslin, 1998).

        Args:
            pending: Chunks that waited behind the result's chunk when it was delivered.
            weight: Weight of the maps sent.
        """
        if self._is_fixed:
            return
        cores = max(1, cores)
        if pending < LOW * cores:
            # While the window is not full, an empty queue says nothing about it.
            if self.in_flight + 1 >= int(self.size):
                self.size += weight
        elif pending <= HIGH * cores:
            self.size += weight / self.size
        else:
            self.size = max(1.0, self.size - DECREASE)
        self.size = min(self.size, 4.0 * cores + 2)
