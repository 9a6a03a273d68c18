"""How many chunks a dispatcher keeps in flight."""

from __future__ import annotations

LOW, HIGH = 0.5, 1.5  # The band of waiting chunks a core that all dispatchers steer for.
DECREASE = 0.15
BACKOFF = 0.7


class Window:
    """Steered by the broker's backlog, which every delivery carries: exact, and shared by all
    dispatchers, so that together they keep about one chunk a core waiting.

    (Additive increase and decrease on queue length, as in TCP Vegas, but on the queue itself
    and not on times: on times, whoever never saw an empty queue gets less.)
    """

    def __init__(self, size: float = 2.0) -> None:
        self.size = size
        self.in_flight = 0
        self._is_fresh = True

    def open(self, cores: int) -> None:
        """Before the first chunk: one for each core, or long items would wait for it to grow."""
        if self._is_fresh:
            self._is_fresh = False
            self.size = max(self.size, float(cores))

    @property
    def has_room(self) -> bool:
        return self.in_flight < int(self.size)

    def sent(self) -> None:
        self.in_flight += 1

    def refused(self) -> None:
        """The broker has no room for what is out already."""
        self.size = max(1.0, min(self.size, float(self.in_flight)) * BACKOFF)

    def ended(self) -> None:
        self.in_flight = max(0, self.in_flight - 1)

    def steer(self, pending: int, cores: int, weight: float = 1.0) -> None:
        """A result came. pending: chunks that waited behind its chunk when it was taken.

        weight: of what is sent. Sizes settle in proportion to how fast they grow, as those of
        weighted TCPs do (MulTCP, Crowcroft and Oechslin, 1998).
        """
        cores = max(1, cores)
        if pending < LOW * cores:
            # A window that is not used says nothing by an empty queue.
            if self.in_flight + 1 >= int(self.size):
                self.size += weight
        elif pending <= HIGH * cores:
            self.size += weight / self.size
        else:
            self.size = max(1.0, self.size - DECREASE)
        self.size = min(self.size, 4.0 * cores + 2)
