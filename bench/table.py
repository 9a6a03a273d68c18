"""The rows of the report, as a Markdown table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec


class Target(msgspec.Struct, frozen=True):
    """Bound that a figure should reach. unit: printed after the figure."""

    kind: Literal["at least", "at most"]
    value: float
    unit: str = ""

    def is_met(self, figure: float) -> bool:
        return figure >= self.value if self.kind == "at least" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}{self.unit}"


class Row(msgspec.Struct, frozen=True):
    """One line of the report.

    figure: compared with the target; usually the ratio of jetmap to its baseline. aside: another
    baseline, for comparison only. samples: every measurement, in seconds or as the row says.
    """

    name: str
    work: str
    baseline: str
    jetmap: str
    figure: float
    target: Target
    aside: str = ""
    samples: dict[str, list[float]] = {}

    @property
    def is_met(self) -> bool:
        return self.target.is_met(self.figure)

    def cells(self) -> list[str]:
        return [
            self.work,
            self.aside,
            self.baseline,
            self.jetmap,
            f"{self.figure:.2f}{self.target.unit}",
            str(self.target),
            "yes" if self.is_met else "**no**",
        ]


HEAD = ["work", "to compare", "baseline", "jetmap", "ratio", "target", "met"]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]

    def text(cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    return "\n".join([text(HEAD), text(["-" * width for width in widths]), *map(text, lines[1:])])


def seconds(value: float) -> str:
    """A duration with three digits, in the unit that suits it."""
    if value < 1e-6:
        return f"{value * 1e9:.0f} ns"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s"
