"""What ran, how often and why again: from the notes of the soak's functions. No jetmap in here.

Each worker writes one file, ``<agent's pid>-<its pid>-<when>.runs``, with a line before each item
that it computes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from .checker import HANG_UPS, HTTP, JOBS, STREAMING, Checker, Map, Violation

# What a fault may still be the cause of, seconds after it has ended.
AFTERMATH = 40.0
# A killed caller's items start no later than this after it, and those of one that left.
KILLED_LIMIT, LEFT_LIMIT = 10.0, 1.0
SLACK = 2.5  # Seconds that a machine as busy as this may be late.
# A job's item whose outcome is in the store does not start again later than this after it was
# read there, unless at an agent that did not hear of it.
STORED_LIMIT = 4.0
DEAF = ("agent frozen", "network cut", STALL := "machine stood still")

# Faults that take away the worker that an item is in, or the way back of its result.
TAKING = (
    "everything killed",
    "gateway killed",
    "worker killed",
    "agent killed",
    "agent frozen",
    "agent restarted",
    "network cut",
    "caller frozen",
    "gateway frozen",
    "broker restarted, store kept",
    "broker restarted, store lost",
    "leader killed",
    "machine stood still",  # The machine itself does nothing for a while.
)

# Seconds until what was being computed must be there, where nothing else happened.
LIMITS = {
    "worker killed": 5.0,
    "agent killed": 20.0,
    "agent frozen": 20.0,
    "agent restarted": 14.0,
    "network cut": 20.0,
    "caller frozen": 20.0,
    "gateway frozen": 20.0,
    "broker restarted, store kept": 15.0,
    "broker restarted, store lost": 15.0,
    "leader killed": 20.0,
}


@dataclass
class Fault:
    """Something that the injector did. agent: pid of the agent that was hit. caller: the name
    of the caller that was hit."""

    kind: str
    began: float
    ended: float = math.inf
    agent: int | None = None
    worker: int | None = None
    caller: str | None = None
    text: str = ""

    def hits_caller_of(self, map: Map) -> bool:
        if map.way in JOBS:
            return self.caller is not None  # Whoever runs dispatchers may have carried it.
        if self.caller == "gateway":
            return map.way in HTTP
        return self.caller is not None and self.caller == map.caller

    def is_around(self, at: float, before: float = AFTERMATH) -> bool:
        return self.began <= at <= self.ended + before


@dataclass
class Run:
    """One execution of an item. last: whether it was its worker's last."""

    at: float
    agent: int
    worker: int
    number: int
    last: bool
    until: float  # when its worker began the next item


@dataclass
class Findings:
    """executed: items' executions. again: by cause, how many of them were not the first.
    stored_again: of these, of jobs' items that had an outcome in the store. recovery: by kind of
    fault, for each the seconds from the fault to the outcome of what was computed by those it
    hit. slowest: the same, with the fault and the item. waits: seconds that an open map went
    without an outcome, since when, and which; longest first."""

    executed: int = 0
    again: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    given_up: int = 0
    stored_again: int = 0
    crashes: int = 0
    slowest: list[tuple[float, Fault, str]] = field(default_factory=list)
    waits: list[tuple[float, float, str]] = field(default_factory=list)


def examine(checker: Checker, faults: list[Fault], files: Iterable[Path]) -> Findings:
    """Reads the notes; adds to the checker's violations what is not as promised."""
    findings = Findings()
    runs = read_runs(files)
    for name, map in checker.maps.items():
        found = runs.get(name.removeprefix("audit."), {})
        if map.way == "audit":  # The same job once more.
            _check_unrun(checker, map, found)
            continue
        findings.executed += sum(len(r) for r in found.values())
        _check_unrun(checker, map, found)
        for several in found.values():
            several.sort(key=lambda run: run.at)
            for earlier, later in pairwise(several):
                findings.again[_cause(map, earlier, later, faults)] += 1
        _check_given_up(checker, map, found, faults, findings)
        _check_late(checker, map, found, faults)
        _check_refusal(checker, map, faults)
        _check_stored(checker, map, found, faults, findings)
    findings.crashes = _crashes(checker, runs)
    for fault in faults:
        recovered = None if fault.kind == STALL else _recovered(fault, checker, runs)
        if recovered is not None and not _stalled(faults, fault.began, recovered[0]):
            seconds, item = recovered
            findings.recovery[fault.kind].append(seconds)
            findings.slowest.append((seconds, fault, item))
            _check_limit(checker, fault, faults, seconds, item)
    findings.slowest.sort(key=lambda found: -found[0])
    waits = [wait for wait in _waits(checker) if not _stalled(faults, wait[1], wait[0])]
    findings.waits = sorted(waits, reverse=True)[:10]
    return findings


def read_runs(files: Iterable[Path]) -> dict[str, dict[int, list[Run]]]:
    """By map and number, the executions of each item."""
    runs: dict[str, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        agent, worker, _ = path.stem.split("-")
        before: Run | None = None
        for line in path.read_text().splitlines():
            fields = line.split()
            if len(fields) != 3:
                continue  # the worker was killed while it wrote
            name, number, at = fields[0], int(fields[1]), float(fields[2])
            run = Run(at, int(agent), int(worker), number, True, math.inf)
            if before is not None:
                before.last, before.until = False, at
            runs[name][number].append(run)
            before = run
    return runs


def _check_unrun(checker: Checker, map: Map, runs: dict[int, list[Run]]) -> None:
    """An item that has a value was computed."""
    for index in map.outcomes:
        number, micros, how, _ = map.items[index]
        if how == "" and isinstance(micros, int) and number not in runs:
            text = f"item {index} has an outcome and never ran"
            checker.violations.append(Violation("wrong", map.name, map.last, text))


def _cause(map: Map, earlier: Run, later: Run, faults: list[Fault]) -> str:
    """Why an item ran once more."""
    for fault in faults:
        if fault.worker == earlier.worker and earlier.at <= fault.began <= earlier.until:
            return fault.kind
    index = later.number - map.base
    if map.function != "steady" and 0 <= index < len(map.items) and _died_by_itself(map, earlier):
        return "crashing item"
    around = [f for f in faults if f.kind in TAKING and f.is_around(later.at)]
    hit = [f for f in around if f.agent == earlier.agent or f.hits_caller_of(map)]
    everywhere = [f for f in around if f.agent is None and f.caller is None]
    for group in (hit, everywhere, around):
        if group:
            return max(group, key=lambda fault: fault.began).kind
    return "crashing item" if map.function != "steady" else "no fault"


def _died_by_itself(map: Map, run: Run) -> bool:
    """Whether this execution was the end of its worker, and the item says so."""
    how = map.items[run.number - map.base][2]
    return how in ("exit", "segfault", "kill", "once", "loop", "hold")


def _check_given_up(
    checker: Checker,
    map: Map,
    runs: dict[int, list[Run]],
    faults: list[Fault],
    findings: Findings,
) -> None:
    """An item without fault is given up only if its worker was taken from it twice."""
    end = map.ended if map.ended is not None else map.last
    taking = [
        f
        for f in faults
        if f.kind
        in ("worker killed", "agent killed", "agent frozen", "network cut", "everything killed")
        and f.began <= end
        and f.ended + AFTERMATH >= map.began
    ]
    for index in map.given_up:
        findings.given_up += 1
        times = len(runs.get(map.items[index][0], []))
        if times < 2 or len(taking) < 2:
            text = f"item {index} was given up; it ran {times} times, faults: {len(taking)}"
            checker.counts["wrong"] += 1
            checker.violations.append(Violation("wrong", map.name, end, text))


def _check_refusal(checker: Checker, map: Map, faults: list[Fault]) -> None:
    """A map is refused, or its connection breaks, only where a fault is the reason."""
    if map.how == "refused":
        reasons = [f for f in faults if f.kind in TAKING and f.is_around(map.last)]
    elif map.how == "broken":
        breaking = [f for f in faults if f.kind in ("gateway killed", STALL)]
        reasons = [f for f in breaking if f.began <= map.last and f.ended + AFTERMATH >= map.began]
    else:
        return
    if not reasons:
        checker.violations.append(Violation("ended", map.name, map.last, f"{map.how}: {map.what}"))


def _check_stored(
    checker: Checker,
    map: Map,
    runs: dict[int, list[Run]],
    faults: list[Fault],
    findings: Findings,
) -> None:
    """What had its outcome in the store, as its reader knows, did not run again."""
    if map.way not in JOBS:
        return
    deaf = [f for f in faults if f.kind in DEAF]
    for index, told in map.outcomes.items():
        for run in runs.get(map.items[index][0], []):
            if run.at <= told + STORED_LIMIT:
                continue
            if any(f.began <= run.at and f.ended + AFTERMATH >= told for f in deaf):
                continue
            findings.stored_again += 1
            text = f"item {index} ran {run.at - told:.1f} s after its outcome was read"
            checker.violations.append(Violation("late", map.name, run.at, text))


def _check_late(
    checker: Checker, map: Map, runs: dict[int, list[Run]], faults: list[Fault]
) -> None:
    """Nothing of a map starts long after its caller left, or was killed, where nothing else
    happened at that time."""
    if map.way in JOBS:
        return  # They go on.
    killed = next((f for f in faults if f.caller == map.caller and "killed" in f.kind), None)
    if map.how == "left" and map.ended is not None:
        left, limit = map.ended, LEFT_LIMIT
    elif map.ended is None and killed is not None:
        left, limit = killed.began, KILLED_LIMIT
    else:
        return
    others = [f for f in faults if f is not killed and (f.caller is None or f.hits_caller_of(map))]
    if any(f.is_around(left, 20) or 0 < f.began - left < limit for f in others):
        return
    late = [run for several in runs.values() for run in several if run.at > left + limit + SLACK]
    if late:
        seconds = max(run.at for run in late) - left
        text = f"{len(late)} items started up to {seconds:.1f} s after its caller left"
        checker.violations.append(Violation("late", map.name, left, text))


def _check_limit(
    checker: Checker, fault: Fault, faults: list[Fault], seconds: float, item: str
) -> None:
    others = [
        f
        for f in faults
        if f is not fault and f.began <= fault.began + seconds and f.ended + 20 >= fault.began
    ]
    if seconds > LIMITS[fault.kind] and not others:
        text = f"{fault.kind}: {seconds:.1f} s until this item had its outcome: {item}"
        checker.violations.append(Violation("late", item.split()[0], fault.began + seconds, text))


def _crashes(checker: Checker, runs: dict[str, dict[int, list[Run]]]) -> int:
    """How often an item took its worker along."""
    crashes = 0
    for name, map in checker.maps.items():
        for number, several in runs.get(name, {}).items():
            how = map.items[number - map.base][2]
            if how in ("exit", "segfault", "kill", "loop", "hold"):
                crashes += len(several)
            elif how == "once":
                crashes += 1
    return crashes


def _recovered(
    fault: Fault, checker: Checker, runs: dict[str, dict[int, list[Run]]]
) -> tuple[float, str] | None:
    """Seconds from the fault until the last outcome was there of what was then being computed by
    whom it hit, and that item. Only of maps whose outcomes are told as they finish."""
    if fault.caller is not None and "killed" in fault.kind:
        return None
    seconds = []
    since = fault.ended if fault.caller is not None else fault.began
    for name, map in checker.maps.items():
        if map.way not in STREAMING or map.began > fault.began or map.last < fault.began:
            continue
        if fault.caller is not None and not fault.hits_caller_of(map):
            continue
        for number, several in runs.get(name, {}).items():
            told = map.outcomes.get(number - map.base)
            if told is None or told <= fault.began:
                continue
            for run in several:
                hit = fault.agent in (None, run.agent) and fault.worker in (None, run.worker)
                if hit and run.at <= fault.began < run.until:
                    item = f"{name} {map.items[number - map.base]}, ran {len(several)} times"
                    seconds.append((max(0.0, told - since), item))
    return max(seconds, default=None)


def _stalled(faults: list[Fault], since: float, seconds: float) -> bool:
    """Whether the machine stood still meanwhile."""
    return any(f.kind == STALL and f.began <= since + seconds and f.ended >= since for f in faults)


def _waits(checker: Checker) -> Iterable[tuple[float, float, str]]:
    """The gaps between a map's outcomes."""
    for map in checker.maps.values():
        if map.way in STREAMING + JOBS and map.ended is not None:
            times = sorted({map.began, *map.outcomes.values(), map.ended})
            for before, after in pairwise(times):
                yield after - before, before, f"{map.name}, {map.function} by {map.way}"


def hang_ups(checker: Checker) -> Counter[str]:
    """How often callers left in the middle."""
    return Counter(HANG_UPS[m.way] for m in checker.maps.values() if m.how == "left")
