"""The findings of a soak, in Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from .checker import Checker, Violation
from .executions import Findings
from .faults import JOB_LIMIT, KILLED, LEFT_LIMIT, LIMITS, OWNERS, STALL, Fault
from .recovery import LEFT


def report(
    title: str,
    checker: Checker,
    faults: list[Fault],
    findings: Findings,
    left_early: Counter[str],
    notes: Iterable[str],
) -> str:
    """The whole account."""
    maps, counts = list(checker.maps.values()), checker.counts
    ends = Counter(map.how or "caller killed" for map in maps)
    once = max(1, findings.executed)
    repeats = sum(findings.again.values())
    lines = [
        title,
        "",
        f"maps {len(maps):,} ({', '.join(f'{how} {n:,}' for how, n in ends.most_common())}),",
        f"items {sum(len(map.items) for map in maps):,}, outcomes {checker.outcomes:,}",
        "",
        f"**lost {counts['lost']}, doubled {counts['doubled']}, wrong {counts['wrong']}**",
        "",
        f"executions {findings.executed:,}, {repeats:,} of them repeats "
        f"({100 * repeats / once:.2f} %); given up after two faults in one item: "
        f"{findings.given_up}",
        "",
        "| fault | times | items run again, each time | recovery p50 | p99 | limit, s | checked |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    times = Counter(fault.kind for fault in faults if fault.kind != STALL) + left_early
    times["crashing item"] = findings.crashes
    for kind in findings.checked:
        times[kind] += 0
    for kind in sorted(times):
        n, seconds = times[kind], sorted(findings.recovery.get(kind, []))
        again = f"{findings.again.get(kind, 0) / n:.2f}" if n else "-"
        p50, p99 = (
            (f"{_quantile(seconds, 0.5):.2f}", f"{_quantile(seconds, 0.99):.2f}")
            if seconds
            else ("-", "-")
        )
        limit, checked = (
            limit_of(kind),
            findings.checked[kind] or ("-" if kind not in LIMITS else 0),
        )
        lines.append(f"| {kind} | {n or '-'} | {again} | {p50} | {p99} | {limit} | {checked} |")
    lines += ["", f"limits checked, of faults that came alone: {findings.checked.total():,}"]
    if odd := findings.again.get("no fault"):
        lines += ["", f"executed again without a fault: {odd}"]
    longest = max((seconds for seconds, _, _ in findings.waits), default=0.0)
    if checker.tickets:
        lines += [
            "",
            f"jobs accepted {checker.tickets:,}, each read by its caller and once more at the end; "
            f"executions of items that were stored already: {findings.stored_again}",
        ]
    lines += ["", f"longest wait of a map for its next outcome: {longest:.1f} s", ""]
    return "\n".join([*lines, *notes])


def limit_of(kind: str) -> str:
    """Seconds, as they are promised."""
    if kind == LEFT:
        return f"{LEFT_LIMIT.seconds:g}"
    if kind in OWNERS.values():
        return f"{JOB_LIMIT.seconds:g}"
    limit = LIMITS.get(kind) or KILLED.get(kind)
    return f"{limit.seconds:g}" if limit else "-"


def slowest(findings: Findings, faults: list[Fault], start: float) -> list[str]:
    """The longest recoveries and waits, with the other faults of that time."""
    lines = []
    for seconds, fault, item in findings.slowest[:6]:
        lines.append(f"{seconds:.2f} s after {told(fault, start)}: {item}")
        for other in counting(faults):
            near = other.began <= fault.began + seconds and other.ended + 15 >= fault.began
            if near and other is not fault:
                lines.append(f"    {told(other, start)}")
    for seconds, since, which in findings.waits[:4]:
        lines.append(f"{seconds:.2f} s from {since - start:.1f} s without an outcome: {which}")
        for other in counting(faults):
            if other.began <= since + seconds and other.ended + 15 >= since:
                lines.append(f"    {told(other, start)}")
    return lines


def counting(faults: list[Fault]) -> list[Fault]:
    return [fault for fault in faults if fault.counts]


def told(fault: Fault, start: float) -> str:
    ended = "" if math.isinf(fault.ended) else f"-{fault.ended - start:.1f}"
    return f"{fault.began - start:.1f}{ended} s {fault.kind} {fault.text}"


def violations(found: list[Violation], faults: list[Fault], start: float) -> list[str]:
    """Each, with the faults around it. start: of the clock that is printed."""
    lines = []
    for violation in found:
        lines.append(
            f"{violation.fault.upper()} at {violation.at - start:.1f} s, map {violation.map}: "
            f"{violation.text}"
        )
        for fault in counting(faults):
            if fault.is_around(violation.at, 25):
                lines.append(f"    {told(fault, start)}")
    return lines


def _quantile(values: list[float], q: float) -> float:
    return values[min(len(values) - 1, math.ceil(q * len(values)) - 1)]
