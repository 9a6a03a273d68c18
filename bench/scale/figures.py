"""The figures of a run, and how they are shown: line by line, as tables, and as charts."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from bench.plot import chart
from bench.table import seconds as shown

from .pool import PARTIES

SECONDS = ("first", "seconds", "sent", "busy", "took")  # Values that are times.
UNITS = {
    "idle": ("agents", "per cent of a core while nothing runs"),
    "announced idle": (
        "agents of 64 cores and 50 functions, idle",
        "per cent of a core; each: µs an announcement",
    ),
    "announced busy": (
        "agents of 64 cores and 50 functions, busy",
        "per cent of a core; each: µs an announcement",
    ),
    "chunk": ("agents", "µs of CPU a chunk, beside what idle agents cost"),
    "items": ("items of a list", "µs of CPU an item"),
    "maps": ("open maps", "µs of CPU a map of ten items"),
    "far": ("ms of round trip", "share of the ideal"),
    "joining": ("cores", "share of the ideal; seconds until cores that joined have chunks"),
    "shards": ("shards", "µs of CPU a chunk; busiest: the share of that server; idle: per cent"),
}


class Figure(msgspec.Struct, frozen=True):
    """One measurement. at: the size of what was measured, in the row's unit."""

    row: str
    at: float
    values: dict[str, float]


def report(figures: list[Figure]) -> None:
    """Print figures as soon as they are there."""
    for figure in figures:
        print(f"{figure.row} {figure.at:g}: {_cells(figure)}", file=sys.stderr, flush=True)


def _cells(figure: Figure) -> str:
    return ", ".join(
        f"{name} {shown(value) if name in SECONDS else f'{value:.3g}'}"
        for name, value in figure.values.items()
    )


def markdown(figures: list[Figure]) -> str:
    """Return a table for each row."""
    tables = []
    for row in dict.fromkeys(figure.row for figure in figures):
        of = [figure for figure in figures if figure.row == row]
        names = list(of[0].values)
        unit, what = UNITS[row]
        lines = [
            f"{row}: {what}\n",
            f"| {unit} | {' | '.join(names)} |",
            f"| --- |{' --- |' * len(names)}",
        ]
        for figure in of:
            cells = [f"{figure.values[name]:.3g}" for name in names]
            lines.append(f"| {figure.at:g} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def plot(figures: list[Figure], directory: Path) -> None:
    """Write a chart for each row."""
    directory.mkdir(parents=True, exist_ok=True)
    for row in dict.fromkeys(figure.row for figure in figures):
        of = [figure for figure in figures if figure.row == row]
        parties = [name for name in of[0].values if name in PARTIES or name.startswith("server")]
        names = list(of[0].values) if row == "far" else parties
        lines = {name: [(figure.at, figure.values[name]) for figure in of] for name in names}
        unit, what = UNITS[row]
        drawn = chart(row, unit, what, lines, logarithmic=row != "far")
        (directory / f"scale-{row.replace(' ', '-')}.svg").write_text(drawn, encoding="utf-8")
