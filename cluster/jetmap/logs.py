"""Log lines that a terminal and a disk can bear: escaped, and not more than some a second."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

# C0 but newline and tab, DEL, C1, line separators, and what changes the direction of text.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
INDENT = "    "


def harmless(text: str, *, lines: bool = False) -> str:
    r"""Escape control characters, as in ``\x1b``, newlines too unless ``lines``."""
    text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return text if lines else text.replace("\n", r"\n").replace("\t", r"\t")


class Formatter(logging.Formatter):
    """One line a record; further ones are indented, so that no text can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record), lines=True).replace("\n", f"\n{INDENT}")


class Flood:
    """Let through ``rate`` things a second, ``burst`` at once, and count the others.

    Times are seconds of one clock, given by the caller.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.left_out = 0
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def lets_through(self, now: float) -> bool:
        """Whether the next one may pass; else it is counted in ``left_out``."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            self.left_out += 1
            return False
        self._tokens -= 1
        return True

    def reset(self) -> int:
        """The number of those left out, which is then forgotten."""
        count, self.left_out = self.left_out, 0
        return count


class Limited:
    """A logger for what may come in floods: crashes, requests.

    what: what a record stands for, in the plural, for the line that tells how many were left out.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        *,
        rate: float,
        burst: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._what = what
        self._flood = Flood(rate, burst)
        self._clock = clock

    @property
    def has_left_out(self) -> bool:
        """Whether some were counted, and not told of yet."""
        return self._flood.left_out > 0

    def passes(self, level: int) -> bool:
        """Whether the next record is to be written; if there are too many, it is counted."""
        return self._logger.isEnabledFor(level) and self._flood.lets_through(self._clock())

    def write(self, level: int, message: str, *values: object) -> None:
        """Log a record that passes."""
        self.tell()
        self._logger.log(level, message, *values)

    def log(self, level: int, message: str, *values: object) -> None:
        """Log a record if it passes."""
        if self.passes(level):
            self.write(level, message, *values)

    def tell(self) -> None:
        """Log how many were left out since the last time."""
        if count := self._flood.reset():
            self._logger.warning("%d more %s are not shown here", count, self._what)
