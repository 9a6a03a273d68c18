"""Make log lines harmless: escape control characters, limit lines a second, wait for no reader."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

# Control characters: C0 except newline and tab, DEL, C1, line separators, direction marks.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
INDENT = "    "
LEFT_OUT = "%d more %s are not shown here"
# Bytes of log lines that wait for a slow reader; further lines are left out.
KEPT_BYTES = 65_536
# Seconds until waiting lines are offered to the reader again.
OFFER_SECONDS = 0.1
# Seconds that a process waits, when it ends, for the reader of its last lines.
LAST_SECONDS = 0.5
# Bytes that a pipe takes without blocking if it is writable (PIPE_BUF on Linux), and a terminal.
_PIPE_BYTES, _TERMINAL_BYTES = 4_096, 256


def harmless(text: str, *, lines: bool = False) -> str:
    r"""Escape control characters, as in ``\x1b``, newlines too unless ``lines``."""
    text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return text if lines else text.replace("\n", r"\n").replace("\t", r"\t")


def harmless_json(text: str) -> str:
    r"""Escape control characters in the strings of JSON, as in ``\u009b``; it means the same."""
    return _CONTROL.sub(_escaped_in_json, text)


def _escaped_in_json(found: re.Match[str]) -> str:
    # Below a space it is white space between tokens: in strings these are escaped in any case.
    return found[0] if found[0] < " " else f"\\u{ord(found[0]):04x}"


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
            self._logger.warning(LEFT_OUT, count, self._what)


class PromptHandler(logging.Handler):
    """Write records to a descriptor, such as stderr, and never wait for its reader.

    Lines that the reader does not take yet are kept, up to ``KEPT_BYTES``. Further ones are left
    out until it has taken those, and a line says how many. Lines that cannot be written at all, as
    on a full disk, are dropped.

    Args:
        follows: Another pipe or file may be put under ``fd`` later.
    """

    def __init__(self, fd: int = 2, *, follows: bool = False) -> None:
        super().__init__()
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._kept = b""
        self._left_out = 0
        self._later: asyncio.TimerHandle | None = None
        own = None if follows else _reopened(fd)
        self._fd = fd if own is None else own
        self._owns = own is not None
        # Writing to a file never waits for a reader.
        is_file = stat.S_ISREG(os.fstat(fd).st_mode) and not follows
        self._asks = own is None and not is_file
        self._piece = _TERMINAL_BYTES if self._asks and os.isatty(fd) else _PIPE_BYTES
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        if self._kept or self._left_out:
            self._offer()
            if self._left_out or (self._kept and len(self._kept) + len(line) > KEPT_BYTES):
                self._left_out += 1
                self._offer_later()
                return
        self._kept += line
        self._offer()
        if self._kept:
            self._offer_later()

    def close(self) -> None:
        """Write what is kept, unless the reader does not take it within ``LAST_SECONDS``."""
        with self._locked():
            deadline = time.monotonic() + LAST_SECONDS
            self._offer()
            while self._kept and (left := deadline - time.monotonic()) > 0:
                self._poll.poll(1000 * left)
                self._offer()
            self._kept, self._left_out = b"", 0
            if self._owns:
                os.close(self._fd)
                self._owns = False
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _offer(self) -> None:
        """Write as much of the kept lines as the reader takes now, and then the number left out."""
        self._write()
        if self._left_out and not self._kept:
            values = (self._left_out, "log lines")
            self._kept = self._line(
                logging.LogRecord(__name__, logging.WARNING, __file__, 0, LEFT_OUT, values, None)
            )
            self._left_out = 0
            self._write()

    def _write(self) -> None:
        try:
            while self._kept:
                if self._asks and not self._poll.poll(0):
                    return
                # Whole lines, where they fit: other processes may write to the same pipe.
                piece = self._kept[: self._piece]
                if len(piece) < len(self._kept):
                    piece = piece[: piece.rfind(b"\n") + 1] or piece
                self._kept = self._kept[os.write(self._fd, piece) :]
        except BlockingIOError:
            return
        except OSError:
            self._kept = b""  # As with its reader gone.

    def _offer_later(self) -> None:
        """Offer the kept lines again soon, where an event loop runs; else with the next record."""
        if self._later is not None:
            return
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._later = loop.call_later(OFFER_SECONDS, self._on_later)

    def _on_later(self) -> None:
        with self._locked():
            self._later = None
            self._offer()
            if self._kept:
                self._offer_later()

    def _locked(self) -> Any:
        assert self.lock is not None, "made by logging.Handler"
        return self.lock


def _reopened(fd: int) -> int | None:
    """Open a pipe or terminal once more, non-blocking; None where that is not possible.

    O_NONBLOCK on the descriptor itself would hold for all programs that share it.
    """
    if not (stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd)) or sys.platform != "linux":
        return None
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:  # Another user's, or there is no /proc.
        return None
