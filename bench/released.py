"""The figures of the last release, and which rows have fallen below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from .table import Row

FILE = Path(__file__).with_suffix(".json")
# Share of a released ratio that may be lost to the noise of a quiet machine.
TOLERANCE = 0.05


class Released(msgspec.Struct, frozen=True):
    """Ratios that a release reached.

    Attributes:
        version: Of the release, or the commit that was measured.
        cores: Cores that were used: other numbers of cores have other ratios.
        ratios: By the work of the row. Times and shares of a core are not recorded, because they
            depend on the machine.
    """

    version: str
    cores: int
    ratios: dict[str, float]


def read(file: Path = FILE) -> Released | None:
    """Return the recorded figures; None if there are none."""
    return msgspec.json.decode(file.read_bytes(), type=Released) if file.exists() else None


def record(rows: Sequence[Row], version: str, cores: int, file: Path = FILE) -> None:
    """Record the ratios of these rows, beside those of other rows on as many cores."""
    before = read(file)
    ratios = dict(before.ratios) if before is not None and before.cores == cores else {}
    ratios |= {row.work: round(row.figure, 3) for row in rows if is_ratio(row)}
    found = Released(version, cores, dict(sorted(ratios.items())))
    file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


def is_ratio(row: Row) -> bool:
    """Return whether a row's figure is a ratio to a baseline of the same run."""
    return not row.target.unit


def fallen(rows: Sequence[Row], released: Released) -> list[str]:
    """Describe the rows that are over 5 % worse than the last release."""
    found = []
    for row in rows:
        before = released.ratios.get(row.work)
        if before is None or not is_ratio(row):
            continue
        if row.target.kind == "at least":
            is_worse = row.figure < before * (1 - TOLERANCE)
        else:
            is_worse = row.figure > before * (1 + TOLERANCE)
        if is_worse:
            found.append(f"{row.work}: {row.figure:.2f}, and {before:.2f} in {released.version}")
    return found
