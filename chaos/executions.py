"""Why items ran again, and why some were given up: from the notes of the soak's functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from .checker import HANG_UPS, JOBS, STREAMING, Checker, Map, Violation
from .faults import AFTERMATH, OWNERS, STALL, TAKING, VANISHING, Fault, lost_seconds
from .runs import Notes, Run

# A job's item whose outcome is in the store does not start again later than this after it was
# read there, unless at an agent that did not hear of it.
STORED_LIMIT = 4.0
DEAF = ("agent frozen", "network cut", "network cut for long", STALL)
# Seconds within which results are reported after they were computed, unless their chunk has ended.
UNREPORTED = 10.0
ATTEMPTS = 2
# Agents that one item may take along: two in a chunk, and one alone; and one more for each fault
# that keeps its caller from missing an agent in time, at least one.
POISON_LIMIT = 1 + ATTEMPTS
STALLED_TIMEOUT = 0.3  # Seconds of standing still that explain a short item's timeout.

Runs = dict[int, list[Run]]


@dataclass
class Findings:
    """executed: items' executions. again: by cause, how many of them were not the first.
    stored_again: of these, of jobs' items that had an outcome in the store. recovery: by kind of
    fault, for each the seconds from the fault to the outcome of what was computed by those it
    hit. checked: by kind, how many of these were held against their limit. slowest: the same as
    recovery, with the fault and the item. waits: seconds that an open map went without an
    outcome, since when, and which; longest first."""

    executed: int = 0
    again: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    checked: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    stored_again: int = 0
    crashes: int = 0
    slowest: list[tuple[float, Fault, str]] = field(default_factory=list)
    waits: list[tuple[float, float, str]] = field(default_factory=list)


def account(checker: Checker, faults: list[Fault], notes: Notes) -> Findings:
    """Compare executions with the promises; add the breaches to the checker's violations."""
    findings = Findings()
    faults = [fault for fault in faults if fault.counts]
    for name, map in checker.maps.items():
        runs = notes.by_map.get(name.removeprefix("audit."), {})
        _check_unrun(checker, map, runs)
        if map.way == "audit":  # The same job once more.
            continue
        findings.executed += sum(len(several) for several in runs.values())
        _check_again(checker, map, runs, faults, findings)
        _check_blamed(checker, map, runs, faults, findings)
        _check_refusal(checker, map, faults)
        _check_stored(checker, map, runs, faults, findings)
        findings.crashes += _crashes(map, runs)
    findings.waits = sorted(_waits(checker), reverse=True)[:10]
    return findings


def _check_unrun(checker: Checker, map: Map, runs: Runs) -> None:
    """An item that has a value was computed."""
    for index in map.outcomes:
        number, micros, how, _ = map.items[index]
        if how == "" and isinstance(micros, int) and number not in runs:
            text = f"item {index} has an outcome and never ran"
            checker.violations.append(Violation("wrong", map.name, map.last, text))


def _check_again(
    checker: Checker, map: Map, runs: Runs, faults: list[Fault], findings: Findings
) -> None:
    """Each execution that was not an item's first has a cause."""
    for several in runs.values():
        for earlier, later in pairwise(several):
            cause = cause_of(map, earlier, later, faults)
            findings.again[cause or "no fault"] += 1
            if cause is None:
                text = (
                    f"item {later.number - map.base} ran at {earlier.at:.3f} in worker "
                    f"{earlier.worker} of agent {earlier.agent} and, {later.at - earlier.at:.3f} s "
                    f"later and without a fault, in {later.worker} of {later.agent}"
                )
                checker.violations.append(Violation("again", map.name, later.at, text))
        item = map.items[several[0].number - map.base]
        first, last = several[0].at, several[-1].at
        # Who carries a job after another counts anew.
        owners = 1 + sum(f.kind in OWNERS and f.meets(first, last) for f in faults)
        cuts = sum(f.is_everywhere or f.hits_caller_of(map) for f in _between(several, faults))
        limit = (POISON_LIMIT + max(1, cuts)) * (owners if map.way in JOBS else 1)
        if item[2] == "agent" and len(several) > limit:
            text = f"an item that kills its agents toured {len(several)} of them"
            checker.violations.append(Violation("again", map.name, several[-1].at, text))


def _between(several: list[Run], faults: list[Fault]) -> list[Fault]:
    """Return the faults, of those that take something away, between an item's executions."""
    first, last = several[0].at, several[-1].at
    return [f for f in faults if f.kind in TAKING and f.meets(first, last)]


def cause_of(map: Map, earlier: Run, later: Run, faults: list[Fault]) -> str | None:
    """Why an item ran once more; None: nothing that is known of."""
    near = [f for f in faults if f.kind in TAKING and f.meets(earlier.at, later.at, AFTERMATH)]
    for fault in near:
        if fault.worker == earlier.worker and earlier.at >= fault.began - UNREPORTED:
            return fault.kind
    if _died_by_itself(map, earlier):
        return "crashing item"
    if any(run.how for run in earlier.call):
        return "halved batch"
    agents = (earlier.agent, later.agent)
    for group in (
        [f for f in near if f.worker is None and f.agent in agents],
        [f for f in near if f.hits_caller_of(map)],
        [f for f in near if f.is_everywhere],
    ):
        if group:
            return max(group, key=lambda fault: fault.began).kind
    return None


def _died_by_itself(map: Map, run: Run) -> bool:
    """Return whether an item of its map ended the worker before this outcome was reported."""
    last = run.worker_was.last if run.worker_was is not None else None
    if last is None or last.at - run.at > UNREPORTED:
        return False
    if any(other.how in DYING for other in last.call):
        return True  # One of a batch.
    if last.map != run.map:
        return False
    return map.items[last.number - map.base][2] in DYING


DYING = ("exit", "segfault", "kill", "once", "loop", "hold", "popen", "fork")


def _check_blamed(
    checker: Checker, map: Map, runs: Runs, faults: list[Fault], findings: Findings
) -> None:
    """An item without fault is given up only if it was taken from its worker as often as it may
    be tried: by a fault of that very worker, or of its agent."""
    end = map.ended if map.ended is not None else map.last
    for index in map.given_up:
        findings.given_up += 1
        several = runs.get(map.items[index][0], [])
        taken = sum(_was_taken(map, run, index, faults) for run in several)
        if taken < ATTEMPTS:
            text = f"item {index} was given up; it ran {len(several)} times, taken {taken} times"
            _wrong(checker, map, end, text)
    for index in map.timed_out:
        several = runs.get(map.items[index][0], [])
        if not any(lost_seconds(faults, r.at, r.at + 3) > STALLED_TIMEOUT for r in several):
            text = f"item {index} timed out; it takes no time, and ran {len(several)} times"
            _wrong(checker, map, end, text)


def _wrong(checker: Checker, map: Map, at: float, text: str) -> None:
    checker.counts["wrong"] += 1
    checker.violations.append(Violation("wrong", map.name, at, text))


def _was_taken(map: Map, run: Run, index: int, faults: list[Fault]) -> bool:
    """Return whether a fault ended this execution, or the way back of its outcome."""
    if run.final and map.items[index][2] == "once":
        return True
    for fault in faults:
        if fault.worker is not None:
            if fault.worker == run.worker and run.at <= fault.began <= run.until:
                return True
        elif fault.kind in VANISHING and fault.agent in (None, run.agent):
            if run.at <= fault.ended and run.at >= fault.began - UNREPORTED:
                return True
        elif fault.kind == STALL and fault.meets(run.at, min(run.until, run.at + UNREPORTED)):
            return True
    return False


def _check_refusal(checker: Checker, map: Map, faults: list[Fault]) -> None:
    """A map is refused, or its connection breaks, only where a fault is the reason."""
    if map.how == "refused":
        reasons = [f for f in faults if f.kind in TAKING and f.is_around(map.last)]
    elif map.how == "broken":
        breaking = [f for f in faults if f.kind in ("gateway killed", STALL)]
        reasons = [f for f in breaking if f.meets(map.began, map.last, AFTERMATH)]
    else:
        return
    if not reasons:
        checker.violations.append(Violation("ended", map.name, map.last, f"{map.how}: {map.what}"))


def _check_stored(
    checker: Checker, map: Map, runs: Runs, faults: list[Fault], findings: Findings
) -> None:
    """Check that no item ran again whose outcome was in the store, as its reader knows."""
    if map.way not in JOBS:
        return
    deaf = [f for f in faults if f.kind in DEAF]
    for index, told in map.outcomes.items():
        for run in runs.get(map.items[index][0], []):
            if run.at <= told + STORED_LIMIT:
                continue
            if any(f.meets(told, run.at, AFTERMATH) for f in deaf):
                continue
            findings.stored_again += 1
            text = f"item {index} ran {run.at - told:.1f} s after its outcome was read"
            checker.violations.append(Violation("late", map.name, run.at, text))


def _crashes(map: Map, runs: Runs) -> int:
    """Count how often an item took its worker along."""
    crashes = 0
    for number, several in runs.items():
        how = map.items[number - map.base][2]
        if how == "once":
            crashes += 1
        elif how in DYING:
            crashes += len(several)
    return crashes


def _waits(checker: Checker) -> Iterable[tuple[float, float, str]]:
    """The gaps between a map's outcomes."""
    for map in checker.maps.values():
        if map.way in STREAMING + JOBS and map.ended is not None:
            times = sorted({map.began, *map.outcomes.values(), map.ended})
            for before, after in pairwise(times):
                yield after - before, before, f"{map.name}, {map.function} by {map.way}"


def hang_ups(checker: Checker) -> Counter[str]:
    """Count how often callers left in the middle, by the way they left."""
    return Counter(HANG_UPS[m.way] for m in checker.maps.values() if m.how == "left")
