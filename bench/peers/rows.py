"""The rows of the comparison: lists of known cost and size, the same for every contender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from bench import tasks, work
from bench.work import Work

Kind = Literal["list", "many", "one", "start"]


@dataclass(frozen=True)
class PeerRow:
    """One row.

    Attributes:
        kind: A list; many lists at once; one item after the other; a whole script from cold.
        seconds: Compute of all items on one core, if the row is about that.
        prior: Items of the same function that are mapped before each measurement, at another cost.
        payload: Makes the items of a row that take much memory, when it is measured.
    """

    title: str
    kind: Kind = "list"
    f: Callable[[Any], Any] = tasks.nothing
    items: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    lists: int = 1
    prior: list[Any] = field(default_factory=list)
    payload: Callable[[], list[Any]] | None = None

    def inputs(self) -> list[Any]:
        """Return the items, made anew if they take much memory."""
        return self.items if self.payload is None else self.payload()


def _bytes(items: int, size: int) -> list[bytes]:
    return [bytes([number % 256]) * size for number in range(items)]


def rows(load: Work, shrink: int = 1) -> dict[str, PeerRow]:
    """Return every row. shrink: divides the numbers of items, to try the benchmark."""

    def count(items: int) -> int:
        return max(8, items // shrink)

    def equal(items: int, seconds: float) -> list[int]:
        return load.equal(count(items), seconds)

    def computed(items: list[int]) -> float:
        return sum(items) / load.speed

    steady, tiny = equal(2000, work.STEADY), equal(20_000, work.TINY)
    uneven = load.lognormal(count(400), work.UNEVEN)
    early = load.pareto(count(200), work.HEAVY, long_at=min(10, count(200) - 1))
    late = load.pareto(count(200), work.HEAVY, long_at=count(200) - 1)
    short = equal(10 if shrink == 1 else 8, 0.001)[:10]
    payloads = {"1 kB": (10_000, 1000), "100 kB": (2000, 100_000), "8 MB": (64, 8_000_000)}
    found = {
        "steady": PeerRow("2,000 of 1.5 ms", "list", tasks.even, steady, computed(steady)),
        "steady-other": PeerRow(
            "the same after 2,000 of 15 µs",
            *("list", tasks.even, steady, computed(steady)),
            prior=equal(2000, work.TINY),
        ),
        "uneven": PeerRow("400 lognormal, 6 ms", "list", tasks.uneven, uneven, computed(uneven)),
        "tiny": PeerRow("20,000 of 15 µs", "list", tasks.tiny, tiny, computed(tiny)),
        "tiny-other": PeerRow(
            "the same after 200 of 1.5 ms",
            *("list", tasks.tiny, tiny, computed(tiny)),
            prior=equal(200, work.STEADY),
        ),
        "early": PeerRow("200 Pareto, long early", "list", tasks.heavy, early, computed(early)),
        "late": PeerRow("200 Pareto, long late", "list", tasks.heavy, late, computed(late)),
        "million": PeerRow("1,000,000 of x + 1", "list", tasks.increment, [*range(count(10**6))]),
        "many": PeerRow(
            "100 maps of 10 of 1 ms at once",
            *("many", tasks.short, short, computed(short) * count(100)),
            lists=count(100),
        ),
        "one": PeerRow("one empty item, p50 and p99", "one", items=[*range(count(1000))]),
        "start": PeerRow("cold script to its end", "start", items=[1, 2, 3]),
    }
    for name, (items, size) in payloads.items():
        found[f"bytes-{name.replace(' ', '')}"] = PeerRow(
            f"{items:,} of {name} there and back",
            *("list", tasks.send_back),
            payload=partial(_bytes, count(items), size),
        )
    return found
