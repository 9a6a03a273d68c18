"""Random maps: what goes in, which way, and when the caller leaves."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

# An item as it is sent: [number, microseconds, how, bytes]. In an invalid one the microseconds
# are not numbers.
Item = list[Any]

LIBRARY_WAYS = {
    "map": 5,
    "strict": 1,
    "stream": 5,
    "ordered": 3,
    "cancel": 1,
    "close": 1,
    "slow": 1,
}
JOB_WAYS = {"job": 1}
JOB_HTTP_WAYS = {"job-http": 1}
HTTP_WAYS = {
    "collect": 4,
    "fail": 1,
    "jsonl": 4,
    "jsonl-ordered": 2,
    "sse": 4,
    "hangup": 2,
    "slow-jsonl": 1,
}
# Values can be put by the library only.
HTTP_ONLY = (*HTTP_WAYS, *JOB_HTTP_WAYS)
# Where faults strike one at a time, all workers always compute, and outcomes are noted as they
# come, so that each fault hits something, and its end is seen.
SPACED_WAYS = {
    "library": {"stream": 8, "close": 1, "cancel": 1},
    "http": {"jsonl": 4, "sse": 4, "hangup": 1},
    "job": JOB_WAYS,
    "job-http": JOB_HTTP_WAYS,
}
MIXED_WAYS = {
    "library": LIBRARY_WAYS,
    "http": HTTP_WAYS,
    "job": JOB_WAYS,
    "job-http": JOB_HTTP_WAYS,
}


@dataclass(frozen=True)
class Plan:
    """One map. name: unique in the soak. way: one of the above. leaves: seconds after which the
    caller withdraws, or None. timeout: seconds for the whole map, or None. table: whether the
    function also gets a value that was put."""

    name: str
    function: str
    way: str
    items: list[Item]
    leaves: float | None = None
    timeout: float | None = None
    table: bool = False

    def sent(self) -> list[Item]:
        """Return the items as the function takes them: in batches, each names its map."""
        return [[*item, self.name] for item in self.items] if self.is_batched else self.items

    def kwargs(self, log: str) -> dict[str, Any]:
        """Return the function's keyword arguments. Equal ones let maps share a batch."""
        return {"log": log} if self.is_batched else {"log": log, "map": self.name}

    @property
    def is_batched(self) -> bool:
        return self.function == "together"


def spaced_plan(name: str, ways: dict[str, int], rng: random.Random) -> Plan:
    """A map of a few seconds, of items that take their time, and some that never end."""
    way = rng.choices(list(ways), list(ways.values()))[0]
    leaves = rng.uniform(0.5, 3) if way in ("cancel", "close", "hangup") else None
    function = "steady" if leaves is not None else rng.choices(["steady", "fragile"], [9, 1])[0]
    base, count = rng.randrange(2**31), rng.randint(60, 200)
    millis = rng.choice([20, 50, 100])
    items: list[Item] = [
        [base + n, int(millis * rng.uniform(500, 1500)), "", rng.choice([0, 100])]
        for n in range(count)
    ]
    if leaves is not None:
        for item in rng.sample(items, 6):
            item[1] = 60_000_000  # One of those whose caller does not wait for it.
    elif function == "fragile":
        rng.choice(items)[2] = rng.choice(["once", "exit", "fork"])
    else:
        for item in rng.sample(items, 3):
            item[2] = "beside"
    return Plan(name, function, way, items, leaves)


def killing_plan(name: str, way: str, rng: random.Random, how: str) -> Plan:
    """A map with an item that takes its whole agent with it. how: agent or agent-once."""
    base = rng.randrange(2**31)
    items: list[Item] = [[base + n, 20_000, "", 0] for n in range(60)]
    items[rng.randrange(60)][2] = how
    return Plan(name, "fragile", way, items)


def plan(name: str, ways: dict[str, int], rng: random.Random) -> Plan:
    """The next map of a caller."""
    way = rng.choices(list(ways), list(ways.values()))[0]
    leaves = rng.uniform(0.02, 3) if way in ("cancel", "close", "hangup") else None
    function = rng.choices(["steady", "fragile", "bounded", "together"], [14, 4, 2, 5])[0]
    huge = 0 if way in HTTP_ONLY or way.startswith("job") else 0.5
    kinds = {"short": 5, "medium": 5, "slow": 2, "big": 1, "huge": huge}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if function == "together" and kind != "short":
        kind = "few"
    elif function in ("fragile", "bounded"):
        kind = "medium"
    seconds = math.exp(rng.uniform(math.log(0.005), math.log(3)))  # of compute, in all
    match kind:
        case "short":
            count, micros, size = rng.randint(0, 30), rng.choice([0, 100, 5000]), 0
        case "medium":
            micros = rng.choice([0, 50, 200, 1000, 4000])
            count = max(1, min(3000, int(seconds * 1e6 / max(micros, 500))))
            size = rng.choice([0, 0, 20, 300])
        case "few":
            count, micros, size = rng.randint(1, 300), rng.choice([0, 200, 2000]), 20
        case "slow":
            count, micros, size = rng.randint(1, 20), rng.randint(50_000, 900_000), 0
        case "huge":
            count, micros = rng.randint(1, 4), 500
            size = rng.choice([1_000_000, 5_000_000, 25_000_000, 64_000_000])
        case _:
            count, micros, size = rng.randint(1, 60), 500, rng.choice([5_000, 60_000, 300_000])
    if leaves is not None:
        count, size = max(count, 200), min(size, 300_000)
    if way.startswith("slow"):
        count, micros, size = rng.randint(20, 120), 500, 20_000
    base = rng.randrange(2**31)
    items: list[Item] = [
        [base + n, int(micros * rng.uniform(0.5, 1.5)), "", size] for n in range(count)
    ]
    _spoil(items, function, rng)
    timeout = rng.uniform(0.2, 2) if leaves is None and rng.random() < 0.04 else None
    if way.startswith("job"):
        timeout = None  # A job has one end only.
    table = function == "steady" and way not in HTTP_ONLY and rng.random() < 0.2
    return Plan(name, function, way, items, leaves, timeout, table)


def _spoil(items: list[Item], function: str, rng: random.Random) -> None:
    """Let some items go wrong."""
    if not items:
        return
    match function:
        case "steady":
            bad = 0 if rng.random() < 0.5 else max(1, len(items) // rng.choice([5, 50]))
            hows = [*["raise"] * 6, *["invalid"] * 3, "memory", "beside"]
        case "together":
            hows = [*["raise"] * 3, *["invalid"] * 2, "exit", "segfault", "kill", "once"]
            bad = rng.choice([0, 0, 1, 3])
        case "fragile":
            bad, hows = rng.randint(0, 4), ["exit", "segfault", "kill", "once", "fork"]
        case _:
            bad, hows = rng.randint(0, 2), ["loop", "hold", "raise", "popen"]
    for item in rng.sample(items, min(bad, len(items))):
        how = rng.choice(hows)
        if how == "invalid":
            item[1] = "soon"
        else:
            item[2] = how
