"""Compare what faults cost with what is promised for a fault that comes alone."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import pairwise
from pathlib import Path

from .checker import HTTP, JOBS, STREAMING, Checker, Map, Violation
from .executions import UNREPORTED, Findings, account
from .faults import (
    JOB_LIMIT,
    KILLED,
    LEFT_LIMIT,
    LIMITS,
    OWNERS,
    STALL,
    STOPPED_LIMIT,
    Fault,
    Limit,
    lost_seconds,
)
from .runs import Notes, Run

# After what it hit is well again, a fault is past; where that is not known, after so long.
PAST, PAST_UNKNOWN = 1.0, 20.0
STRIKES = 0.1  # Seconds that a fault takes to be there: a command runs.
LEFT = "caller left"


def examine(checker: Checker, faults: list[Fault], files: Iterable[Path]) -> Findings:
    """Read the notes, and add the breaches of promises to the checker's violations."""
    notes = Notes()
    notes.read(files)
    findings = account(checker, faults, notes)
    hold_to_limits(checker, faults, notes, findings)
    return findings


def hold_to_limits(checker: Checker, faults: list[Fault], notes: Notes, findings: Findings) -> None:
    """Measures how long each fault cost, and compares where it was alone."""
    for fault in faults:
        if fault.kind in KILLED:
            fault.over = fault.began + KILLED[fault.kind].seconds
        if fault.kind not in LIMITS:
            continue
        if found := recovered(fault, checker, notes):
            seconds, item = found
            fault.over = getattr(fault, LIMITS[fault.kind].since) + seconds
            findings.recovery[fault.kind].append(seconds)
            findings.slowest.append((seconds, fault, item))
    findings.slowest.sort(key=lambda found: -found[0])
    for seconds, fault, item in findings.slowest:
        limit = LIMITS[fault.kind]
        since: float = getattr(fault, limit.since)
        # What came before it counts from its own begin, not from where the limit starts.
        if is_alone(fault, faults, fault.began, since + seconds):
            text = f"{seconds:.1f} s until this item had its outcome: {item}"
            _hold(checker, findings, faults, fault.kind, limit, since, seconds, text)
    for map in checker.maps.values():
        _hold_leaving(checker, map, faults, notes, findings)
        _hold_job(checker, map, faults, notes, findings)


def hit_by(fault: Fault, checker: Checker, notes: Notes) -> list[tuple[Map, int, Run]]:
    """Return what a fault hit: maps, indexes and runs, computed or not yet reported by its victims.

    Only maps whose outcomes are noted as they come are considered.
    """
    hit = []
    for name, map in checker.maps.items():
        ended = map.ended is not None and map.ended < fault.began
        # A job's reader may learn late what is stored; so only the agents that computed it count.
        ways = STREAMING if fault.agent is None else STREAMING + JOBS
        if map.way not in ways or map.began > fault.began or ended:
            continue
        if fault.caller is not None and not fault.hits_caller_of(map):
            continue
        for number, several in notes.by_map.get(name, {}).items():
            index = number - map.base
            if index in map.outcomes and map.outcomes[index] <= fault.began:
                continue
            for run in several:
                here = fault.agent in (None, run.agent) and fault.worker in (None, run.worker)
                if here and fault.began - UNREPORTED <= run.at <= fault.began + STRIKES:
                    hit.append((map, index, run))
                    break
    return hit


def recovered(fault: Fault, checker: Checker, notes: Notes) -> tuple[float, str] | None:
    """Seconds from the fault until the last outcome of what it hit was there, and that item. None
    if it hit nothing, or the caller of that was not there any more."""
    since: float = getattr(fault, LIMITS[fault.kind].since)
    found = []
    for map, index, run in hit_by(fault, checker, notes):
        told = map.outcomes.get(index)
        if told is not None:
            several = notes.by_map[map.name][run.number]
            item = f"{map.name} {map.items[index]}, ran {len(several)} times"
            found.append((max(0.0, told - since), item))
    for map in held_up(fault, checker):
        if later := [told for told in map.outcomes.values() if told > fault.ended]:
            found.append((max(0.0, min(later) - since), f"{map.name}, its next outcome"))
    return max(found, default=None)


def held_up(fault: Fault, checker: Checker) -> list[Map]:
    """Maps that were open all through a fault of their caller or the broker."""
    if fault.agent is not None:
        return []
    return [
        map
        for map in checker.maps.values()
        if map.way in STREAMING
        and map.began < fault.began
        and (map.ended is None or map.ended > fault.ended)
        and (fault.caller is None or fault.hits_caller_of(map))
    ]


def is_well(
    fault: Fault, checker: Checker, hit: list[tuple[Map, int, Run]], killed: Container[str] = ()
) -> bool:
    """Return whether everything that a fault hit has an outcome.

    killed: callers whose maps have no end on record.
    """

    def is_over(map: Map) -> bool:
        return map.ended is not None or map.caller in killed

    return all(index in map.outcomes or is_over(map) for map, index, _ in hit) and all(
        is_over(map) or map.last > fault.ended for map in held_up(fault, checker)
    )


def is_alone(fault: Fault | None, faults: list[Fault], since: float, until: float) -> bool:
    """Return whether no other fault has to do with this time."""
    for other in faults:
        if other is fault or other.kind == STALL:
            continue
        past = other.ended + PAST_UNKNOWN
        if other.over is not None:
            past = max(other.over, other.ended) + PAST
        if other.began <= until and past >= since:
            return False
    return True


def _hold(
    checker: Checker,
    findings: Findings,
    faults: list[Fault],
    kind: str,
    limit: Limit,
    since: float,
    seconds: float,
    text: str,
) -> None:
    """Compare one time with its limit, without the seconds that the machine stood still."""
    findings.checked[kind] += 1
    stood = lost_seconds(faults, since, since + seconds)
    if seconds - stood > limit.seconds:
        text = f"{kind}, limit {limit.seconds:g} s ({limit.of}), stood still {stood:.1f} s: {text}"
        at, name = since + seconds, text.rpartition(": ")[2].split()[0]
        checker.violations.append(Violation("late", name, at, text))


def _hold_leaving(
    checker: Checker, map: Map, faults: list[Fault], notes: Notes, findings: Findings
) -> None:
    """Nothing of a map starts, or is computed, long after its caller left or was killed."""
    if map.way in JOBS:
        return  # They go on.
    runs = [run for several in notes.by_map.get(map.name, {}).values() for run in several]
    fault = None
    if map.how == "left" and map.ended is not None:
        kind, since, limit, stopped = LEFT, map.ended, LEFT_LIMIT, STOPPED_LIMIT
    else:
        fault = _killer(map, faults)
        if fault is None:
            return
        kind, since = fault.kind, fault.began
        limit = stopped = KILLED[kind]
    if not any(run.at <= since and since <= max(run.until, run.seen) for run in runs):
        return  # Nothing of it was being computed.
    last_start = max(run.at for run in runs)
    last_seen = max(run.seen for run in runs)
    until = max(since + limit.seconds, last_start, last_seen)
    if not is_alone(fault, faults, since, until):
        return
    started, seen = max(0.0, last_start - since), max(0.0, last_seen - since)
    if started > limit.seconds:
        text = f"an item of it started so long after: {map.name}"
        _hold(checker, findings, faults, kind, limit, since, started, text)
    else:
        text = f"an item of it was being computed so long after: {map.name}"
        _hold(checker, findings, faults, kind, stopped, since, seen, text)
    findings.recovery[kind].append(seen)


def _killer(map: Map, faults: list[Fault]) -> Fault | None:
    """The fault that killed the caller of an open map."""
    if map.ended is not None and map.how != "broken":
        return None
    for fault in faults:
        if fault.kind not in KILLED or not map.began <= fault.began:
            continue
        if fault.caller == "gateway":
            if map.way in HTTP and map.how == "broken" and fault.meets(map.began, map.last, 5.0):
                return fault
        elif fault.caller == map.caller:
            return fault
    return None


def _hold_job(
    checker: Checker, map: Map, faults: list[Fault], notes: Notes, findings: Findings
) -> None:
    """A job that lost its owner starts its next items in time. (From outside nobody knows who
    owns it: so whenever a process that may was killed.)"""
    if map.way not in JOBS:
        return
    starts = [run.at for several in notes.by_map.get(map.name, {}).values() for run in several]
    for fault in faults:
        if fault.kind not in OWNERS or fault.caller == map.caller:
            continue
        since = fault.ended if fault.kind == "everything killed" else fault.began
        if not any(at > since for at in starts) or not map.began < fault.began:
            continue
        end = since + JOB_LIMIT.seconds
        gaps = [
            (b - max(a, since), b)
            for a, b in pairwise(sorted([map.began, *starts]))
            if a <= end and b >= since
        ]
        seconds, at = max(gaps)
        if is_alone(fault, faults, fault.began, at):
            kind = OWNERS[fault.kind]
            text = f"no item of it started for so long: {map.name}"
            findings.recovery[kind].append(seconds)
            _hold(checker, findings, faults, kind, JOB_LIMIT, at - seconds, seconds, text)
