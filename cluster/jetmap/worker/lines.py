"""Cut the output of functions into marked lines: bytes in, bytes out. No I/O."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from jetmap.logs import json_line

MAX_LINE = 65_536  # Bytes of a line; a longer one is cut.
ATOMIC = 4_096  # Bytes that one write to a pipe never mixes with another's (PIPE_BUF on Linux).
SHOW_SECONDS = 5.0  # Seconds between two states of a progress bar that rewrites its line.
BURST_SECONDS = 4.0  # Seconds of its rate that a worker may print at once.

Render = Callable[[str, bytes], bytes]  # Of a mark, and a line without its newline.
RECORD = "\x1e"  # Begins a line that is a record in JSON already (RFC 7464).

# Control characters but the tab: C0, DEL, and C1 as UTF-8 encodes it. Each could drive a terminal.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\xc2[\x80-\x9f]")


def clean(line: bytes) -> bytes:
    """Make a line harmless to a terminal: escape control characters and bad UTF-8 as ``\\x1b``."""
    if not line.isascii():
        line = line.decode("utf-8", "backslashreplace").encode()
    return _CONTROL.sub(lambda found: b"\\x%02x" % found[0][-1], line)


def marked(mark: str, line: bytes) -> bytes:
    """Write a line behind its mark."""
    return b"%s %s\n" % (mark.encode(), clean(line))


def as_json(mark: str, line: bytes) -> bytes:
    """Write a line as JSON, with the map and item of its mark; one that is a record as it is."""
    text = clean(line.removeprefix(RECORD.encode()))
    if line.startswith(RECORD.encode()):
        with contextlib.suppress(ValueError):  # Of a function, which may print anything.
            json.loads(text)
            return text + b"\n"
    fields: dict[str, Any] = {"message": text.decode()}
    map, found, item = mark.strip("[]").partition(" item ")
    if found:
        fields |= {"map": map, "item": int(item)}
    else:  # Of one of several items that were entered together, or of none.
        map, found, items = map.partition(" items ")
        fields |= {"map": map, "items": items} if found else {"worker": map}
    return json_line("INFO", "output", fields).encode() + b"\n"


def renderer(form: str) -> Render:
    """Return how lines are written in this log format."""
    return as_json if form == "json" else marked


class OutputBudget:
    """A token bucket of bytes that may be written."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._most = rate * BURST_SECONDS
        self._left = self._most
        self._at: float | None = None

    def take(self, size: int, now: float) -> bool:
        """Spend ``size`` bytes if any are left; return whether there were any."""
        if self._at is not None:
            self._left = min(self._most, self._left + max(0.0, now - self._at) * self.rate)
        self._at = now
        if self._left <= 0:
            return False
        self._left -= size
        return True


class Keep(Protocol):
    """A place for an unfinished line, where it survives the process that wrote it."""

    def append(self, data: bytes) -> None: ...
    def clear(self) -> None: ...


class MarkedLines:
    """Cut one stream into marked lines.

    A line carries the mark that held when it began; when the mark changes, the unfinished line
    ends. Text before a carriage return is overwritten by the text behind it, as on a terminal, so a
    progress bar shows its last state, and one every ``SHOW_SECONDS``. Each byte is handled a
    bounded number of times.
    """

    def __init__(
        self, budget: OutputBudget, keep: Keep | None = None, render: Render = marked
    ) -> None:
        self._budget = budget
        self._render = render
        self._keep = keep
        self._parts: list[bytes] = []
        self._size = 0
        self._mark = ""
        self._returned = False  # The unfinished line ends with a carriage return.
        self._shown: float | None = None  # When a state of the line was last shown.
        self._dropped_lines = self._dropped_bytes = 0
        self._out: list[bytes] = []

    @property
    def unfinished(self) -> bool:
        """Return whether ``finish`` has something to write."""
        return bool(self._parts or self._dropped_lines)

    def feed(self, data: bytes, mark: str, now: float) -> list[bytes]:
        """Process output; return what to write, one element for each write."""
        if mark != self._mark:
            if self._parts:
                self._end_line(now)
            self._mark = mark
        first, newline, rest = data.partition(b"\n")
        self._extend(first, now)
        if newline:
            self._end_line(now)
            *lines, last = rest.split(b"\n")
            if lines and not self._budget.take(0, now):
                self._drop(len(lines), len(rest) - len(last))
            else:
                for line in lines:
                    self._whole(line, now)
            if last:
                self._extend(last, now)
        return self._written()

    def finish(self, now: float) -> list[bytes]:
        """End the unfinished line, and say how much was dropped."""
        if self._parts:
            self._end_line(now)
        self._say_dropped()
        return self._written()

    def forget(self) -> None:
        """Drop the unfinished line, and keep none from now on: they are another process's."""
        self._keep = None
        self._clear()
        self._dropped_lines = self._dropped_bytes = 0

    def _extend(self, data: bytes, now: float) -> None:
        """Add data without a newline to the unfinished line."""
        first, *states = data.split(b"\r")
        if first:
            self._add(first, now)
        for state in states:
            self._returned = True
            if state:
                self._add(state, now)

    def _add(self, data: bytes, now: float) -> None:
        if self._returned:
            self._show_some(now)
            self._clear(shown=False)
        while self._size + len(data) > MAX_LINE:
            room = MAX_LINE - self._size
            self._parts.append(data[:room])
            data = data[room:]
            self._emit(b"".join(self._parts), now)
            self._clear()
        if data:
            self._append(data)

    def _show_some(self, now: float) -> None:
        """Show the line before it is overwritten, if no state was shown for SHOW_SECONDS."""
        if self._shown is None:
            self._shown = now
        elif now - self._shown >= SHOW_SECONDS and self._parts:
            self._emit(b"".join(self._parts), now)
            self._shown = now

    def _append(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._keep is not None:
            self._keep.append(data)

    def _end_line(self, now: float) -> None:
        line = b"".join(self._parts)
        self._clear()
        self._emit(line, now)

    def _whole(self, line: bytes, now: float) -> None:
        if b"\r" in line or len(line) > MAX_LINE:
            self._extend(line, now)
            self._end_line(now)
        else:
            self._emit(line, now)

    def _clear(self, *, shown: bool = True) -> None:
        if self._parts and self._keep is not None:
            self._keep.clear()
        self._parts, self._size, self._returned = [], 0, False
        if shown:
            self._shown = None

    def _emit(self, line: bytes, now: float) -> None:
        if not self._budget.take(len(line) + len(self._mark) + 2, now):
            self._drop(1, len(line) + 1)
            return
        self._say_dropped()
        self._out.append(self._render(self._mark, line))

    def _drop(self, lines: int, size: int) -> None:
        self._dropped_lines += lines
        self._dropped_bytes += size

    def _say_dropped(self) -> None:
        if self._dropped_lines:
            text = (
                f"... {self._dropped_lines:,} lines ({self._dropped_bytes:,} bytes) "
                f"dropped: a worker may print {self._budget.rate:,} bytes a second "
                "(setting output_bytes)"
            )
            self._out.append(self._render(self._mark, text.encode()))
            self._dropped_lines = self._dropped_bytes = 0

    def _written(self) -> list[bytes]:
        """Gather whole lines into writes that do not mix with other processes' lines."""
        out, self._out = self._out, []
        if len(out) < 2:
            return out
        writes: list[bytes] = []
        group: list[bytes] = []
        size = 0
        for line in out:
            if group and size + len(line) > ATOMIC:
                writes.append(b"".join(group))
                group, size = [], 0
            group.append(line)
            size += len(line)
        writes.append(b"".join(group))
        return writes
