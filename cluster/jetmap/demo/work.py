"""The work of the demo, and the sample by which its time on one core is estimated."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SERIAL_SECONDS = 20.0  # Seconds of work on one core beyond which a sample is measured.
PRIMES_PER_CORE = 500
FIRST_NUMBER = 10**11
MOST_FILES = 5_000  # Files that are measured; of more, as many that lie evenly among them.


@dataclass(frozen=True)
class Work:
    """A map of the demo.

    Attributes:
        weights: Numbers to which the items' costs are roughly proportional.
    """

    title: str
    function: str
    items: list[Any]
    weights: list[int]
    summarize: Callable[[Sequence[Any], int], list[str]]
    what: str


@dataclass(frozen=True)
class Sample:
    """Every ``step``-th item in the order of weight; its time times ``factor`` is the whole's."""

    step: int
    items: list[Any] = field(repr=False)
    factor: float

    def __str__(self) -> str:
        if self.step == 1:
            return "measured, every item"
        return f"measured on {len(self.items):,} items (one in {self.step}, by size), scaled up"


def choose_sample(work: Work, parallel_seconds: float, cores: int) -> Sample:
    """Choose items that take about ``SERIAL_SECONDS`` on one core, by the seconds of the map."""
    step = max(1, round(parallel_seconds * cores / SERIAL_SECONDS))
    order = sorted(range(len(work.items)), key=work.weights.__getitem__)
    # From the middle of each stretch, so that it is neither the lighter nor the heavier half.
    chosen = order[step // 2 :: step]
    weight = sum(work.weights[index] for index in chosen)
    # In the input's order, as the map takes them.
    items = [work.items[index] for index in sorted(chosen)]
    return Sample(step, items, sum(work.weights) / weight)


def source_metrics() -> Work:
    """Return the measuring of the ``.py`` files of this Python installation."""
    paths = sysconfig.get_paths()
    found: set[Path] = set()
    for directory in {paths["stdlib"], paths["purelib"], paths["platlib"]}:
        found |= {path for path in Path(directory).rglob("*.py") if _is_ours(path, paths)}
    files = evenly(sorted(str(path) for path in found), MOST_FILES)
    # Read once, so that neither side pays for a cold disk.
    sizes = [len(Path(path).read_bytes()) for path in files]
    return Work(
        "source metrics",
        "measure",
        files,
        sizes,
        _most_branching,
        f"{_count(len(files), len(found))} files, {sum(sizes) / 1e6:.0f} MB",
    )


def evenly(values: Sequence[T], most: int) -> list[T]:
    """Return at most this many of the values, evenly spaced among them."""
    count = min(most, len(values))
    return [values[number * len(values) // count] for number in range(count)]


def _count(chosen: int, found: int) -> str:
    return f"{chosen:,}" if chosen == found else f"{chosen:,} of {found:,}"


def prime_search(cores: int) -> Work:
    """Return the search for the next primes after evenly spaced numbers."""
    numbers = [FIRST_NUMBER + 10**6 * index for index in range(PRIMES_PER_CORE * cores)]
    return Work(
        "prime search",
        "next_prime",
        numbers,
        [1] * len(numbers),
        _last_prime,
        f"{len(numbers):,} numbers from 10¹¹ on",
    )


def _is_ours(path: Path, paths: dict[str, str]) -> bool:
    """Return whether a file belongs to this environment, not to one with the same stdlib."""
    if not path.is_file():
        return False
    others = Path(paths["stdlib"], "site-packages")
    return others not in path.parents or others in (Path(paths["purelib"]), Path(paths["platlib"]))


def _most_branching(values: Sequence[Any], failed: int) -> list[str]:
    found = [value for value in values if value is not None]
    lines = sum(value["lines"] for value in found)
    functions = sum(value["functions"] for value in found)
    best = max(found, key=lambda value: value["complexity"], default=None)
    said = [f"{lines:,} lines, {functions:,} functions"]
    if best is not None:
        said.append(f"the most branching is {best['name']}() with {best['complexity']} paths")
    if failed == 1:
        said.append("1 file does not parse: that item failed, the others did not")
    elif failed:
        said.append(f"{failed} files do not parse: those items failed, the others did not")
    return said


def _last_prime(values: Sequence[Any], failed: int) -> list[str]:
    found = [value for value in values if value is not None]
    return [f"the largest found is {max(found):,}"] if found else []
