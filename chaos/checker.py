"""The account of every item: what went in, what came out. Shares no code with what it checks.

Reads the JSON lines that callers write (``record``). Each item of a map that ended must have had
exactly one outcome, with the right value or the error that it asked for. The expected value is
computed here once more, from the item.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# How an item goes wrong: the kind of its error, and the exception's class where it is its own.
ERRORS = {
    "raise": ("raised", "ValueError"),
    "memory": ("raised", "MemoryError"),
    "exit": ("lost", None),
    "segfault": ("lost", None),
    "kill": ("lost", None),
    "fork": ("lost", None),
    "agent": ("lost", None),
    "loop": ("timeout", None),
    "hold": ("timeout", None),
    "popen": ("timeout", None),
}
UNHARMED = ("", "once", "agent-once", "beside")  # These have a value, once they are through.

STREAMING = ("stream", "jsonl", "sse")  # Outcomes are noted as they come.
HTTP = ("collect", "fail", "jsonl", "jsonl-ordered", "sse", "hangup", "slow-jsonl")
JOBS = ("job", "job-http")
IN_ORDER = ("ordered", "jsonl-ordered", "audit")
FIRST_ERROR = ("strict", "fail")  # The first failing item ends these.
HANG_UPS = {"cancel": "map cancelled", "close": "stream closed", "hangup": "HTTP hung up"}

STALLED = 100.0  # Seconds that an open map may go without an outcome.


@dataclass
class Map:
    """One map, as its caller wrote it down."""

    name: str
    function: str
    way: str
    timeout: float | None
    items: list[Any]
    began: float
    outcomes: dict[int, float] = field(default_factory=dict)  # index -> when it was noted
    given_up: list[int] = field(default_factory=list)  # unharmed items that are lost, by index
    timed_out: list[int] = field(default_factory=list)  # unharmed items that took too long
    last: float = 0.0
    last_index: int = -1
    ended: float | None = None
    how: str = ""
    what: str = ""

    @property
    def caller(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def base(self) -> int:
        """The number of its first item; those of the others follow."""
        return int(self.items[0][0]) if self.items else 0


@dataclass(frozen=True)
class Violation:
    """fault: lost, doubled, wrong, ended or late. at: when it was seen."""

    fault: str
    map: str
    at: float
    text: str


class Checker:
    """Fed with what callers write, as it grows."""

    def __init__(self) -> None:
        self.maps: dict[str, Map] = {}
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()  # lost, doubled, wrong items
        self.ends: Counter[str] = Counter()  # by way and how
        self.outcomes = 0
        self.tickets = 0  # jobs that were accepted
        self._offsets: dict[Path, int] = {}

    def read(self, files: Iterable[Path]) -> None:
        """Read the complete lines that are new in these files."""
        for path in files:
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + whole
            for line in data[:whole].splitlines():
                self.feed(json.loads(line))

    def feed(self, line: dict[str, Any]) -> None:
        name, at = line["m"], line["t"]
        if line["e"] == "begin":
            self.maps[name] = Map(
                name, line["function"], line["way"], line["timeout"], line["items"], at, last=at
            )
            return
        map = self.maps[name]
        map.last = at
        if map.ended is not None:
            self._report("ended", map, at, f"something came after its end: {line['e']}")
        elif line["e"] == "ticket":
            self.tickets += 1
        elif line["e"] == "out":
            for outcome in line["o"]:
                self._outcome(map, outcome, at)
        else:
            map.ended, map.how, map.what = at, line["how"], line["what"]
            self.ends[f"{map.way} {map.how}"] += 1
            self._end(map)

    def open_maps(self) -> list[Map]:
        return [map for map in self.maps.values() if map.ended is None]

    def stalled(self, now: float) -> list[Map]:
        """Return the open maps that have been silent for too long."""
        return [map for map in self.open_maps() if now - map.last > STALLED]

    def close(self, callers_gone: set[str], now: float) -> None:
        """No more lines come. callers_gone: those that were killed, whose maps need no end."""
        for map in self.open_maps():
            if map.caller in callers_gone:
                self.ends[f"{map.way} caller killed"] += 1
            else:
                missing = len(map.items) - len(map.outcomes)
                self.counts["lost"] += missing
                self._report("lost", map, now, f"it never ended; {missing} items are missing")

    # Inside

    def _outcome(self, map: Map, outcome: list[Any], at: float) -> None:
        index = outcome[0]
        self.outcomes += 1
        if not 0 <= index < len(map.items):
            self.counts["wrong"] += 1
            self._report("wrong", map, at, f"an outcome for item {index} of {len(map.items)}")
            return
        if index in map.outcomes:
            self.counts["doubled"] += 1
            self._report("doubled", map, at, f"item {index} has a second outcome: {outcome}")
            return
        map.outcomes[index] = at
        if map.way in IN_ORDER and index != map.last_index + 1:
            self._report("wrong", map, at, f"item {index} came after item {map.last_index}")
        map.last_index = index
        item = map.items[index]
        if outcome == expected_value(index, item):
            fits = expected_error(item) is None
        elif isinstance(outcome[1], str):
            fits = self._fits(map, index, item, outcome)
        else:
            fits = False
        if not fits:
            self.counts["wrong"] += 1
            self._report("wrong", map, at, f"item {index}, {item}, has the outcome {outcome}")

    def _fits(self, map: Map, index: int, item: Any, outcome: list[Any]) -> bool:
        """Return whether an error is the one that the item asked for."""
        _, kind, type, message = outcome
        if kind == "lost" and expected_error(item) != ("lost", None):
            # Right if its worker was killed in it as often as it may be tried: ``executions``
            # knows that, and asks.
            map.given_up.append(index)
            return True
        wanted = expected_error(item)
        if kind == "timeout" and wanted is None and map.function == "bounded":
            map.timed_out.append(index)  # Right if the machine stood still: the same.
            return True
        if wanted is None or kind != wanted[0]:
            return False
        if wanted[1] is not None:
            mine = wanted[1] == "MemoryError" or str(item[0]) in message
            return bool(type == wanted[1] and mine)
        return True

    def _end(self, map: Map) -> None:
        missing = len(map.items) - len(map.outcomes)
        at = map.last
        if map.how == "done":
            if missing and map.way not in FIRST_ERROR:
                self.counts["lost"] += missing
                indexes = [i for i in range(len(map.items)) if i not in map.outcomes]
                text = f"{missing} of {len(map.items)} items have no outcome: {indexes[:10]}"
                self._report("lost", map, at, text)
            elif missing:
                self.counts["lost"] += missing
                self._report("lost", map, at, f"{missing} values are missing of a strict list")
        elif map.how == "raised":
            if map.way not in FIRST_ERROR or len(map.outcomes) != 1:
                self._report("ended", map, at, f"one item's error ended it: {map.outcomes}")
        elif map.how == "timeout":
            if map.timeout is None:
                self._report("ended", map, at, f"a timeout that nobody asked for: {map.what}")
        elif map.how == "left":
            if map.way not in HANG_UPS:
                self._report("ended", map, at, "its caller left without being told to")
        elif map.how == "refused":
            if map.outcomes:
                self._report("ended", map, at, f"refused after it began: {map.what}")
        elif map.how != "broken":
            self._report("ended", map, at, f"it {map.how}: {map.what}")

    def _report(self, fault: str, map: Map, at: float, text: str) -> None:
        text = f"{map.function} by {map.way}, {len(map.items)} items: {text}"
        self.violations.append(Violation(fault, map.name, at, text[:600]))


def expected_error(item: Any) -> tuple[str, str | None] | None:
    _, micros, how, _ = item
    if not isinstance(micros, int):
        return ("invalid", None)
    return None if how in UNHARMED else ERRORS[how]


def expected_value(index: int, item: Any) -> list[Any]:
    number, _, _, size = item
    period = hex(number)[2:] + "."
    text = period * (size // len(period)) + period[: size % len(period)]
    mixture = (number * 2654435761) & 0xFFFFFFFF
    return [index, number, mixture, size, zlib.crc32(text.encode("ascii"))]
