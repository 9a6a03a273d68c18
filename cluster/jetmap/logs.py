"""Make log lines harmless: escape control characters, and limit lines a second."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

# Control characters: C0 except newline and tab, DEL, C1, line separators, direction marks.
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


class JsonFormatter(logging.Formatter):
    """One JSON object a record, in one line of ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {"message": record.getMessage()}
        for name in ("map", "item", "trace"):
            if (value := getattr(record, f"jetmap_{name}", None)) not in (None, ""):
                fields[name] = value
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(record.levelname, record.name, fields, record.created)


def json_line(level: str, logger: str, fields: dict[str, Any], at: float | None = None) -> str:
    """Write one event as JSON, without a newline. at: seconds since 1970; None: now."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    found = {"time": moment.isoformat(timespec="milliseconds"), "level": level, "logger": logger}
    return json.dumps(found | fields, default=str)


class Flood:
    """A limit of ``rate`` events a second, ``burst`` at once, with a count of the others.

    Times are seconds of one clock, given by the caller.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.left_out = 0
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None
        self._again_at = 0.0  # Time of the next token; nothing passes before it.

    def lets_through(self, now: float) -> bool:
        """Return whether the next event may pass; if not, count it in ``left_out``."""
        if now < self._again_at:
            self.left_out += 1
            return False
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            self._again_at = now + (1 - self._tokens) / self._rate
            self.left_out += 1
            return False
        self._tokens -= 1
        return True

    def reset(self) -> int:
        """Return the number left out, and begin at zero again."""
        count, self.left_out = self.left_out, 0
        return count


class Limited:
    """A logger for events that may come in floods, such as crashes or requests.

    Args:
        what: Plural name of the events, for the line that counts those left out.
        rate: Records a second.
        burst: Records at once.
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
        """Return whether some were left out and not reported yet."""
        return self._flood.left_out > 0

    def passes(self, level: int) -> bool:
        """Return whether to write the next record; if there are too many, count it."""
        return self._logger.isEnabledFor(level) and self._flood.lets_through(self._clock())

    def write(self, level: int, message: str, *values: object) -> None:
        """Log a record that has passed."""
        self.report_left_out()
        self._logger.log(level, message, *values)

    def log(self, level: int, message: str, *values: object) -> None:
        """Log a record if it passes."""
        if self.passes(level):
            self.write(level, message, *values)

    def report_left_out(self) -> None:
        """Log how many records were left out since the last report."""
        if count := self._flood.reset():
            self._logger.warning("%d more %s are not shown here", count, self._what)
