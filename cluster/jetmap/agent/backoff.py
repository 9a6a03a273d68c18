"""Growing pauses between attempts."""

from __future__ import annotations

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0


class Backoff:
    """seconds: to wait before the next attempt."""

    def __init__(self) -> None:
        self.seconds = FIRST_BACKOFF

    def grow(self) -> None:
        self.seconds = min(LAST_BACKOFF, self.seconds * 2)

    def reset(self) -> None:
        self.seconds = FIRST_BACKOFF
