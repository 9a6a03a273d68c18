"""Counters of agents, and their sums: bounded, and never going back."""

from __future__ import annotations

import msgspec

from jetmap.wire.counts import OTHER, AgentCounts, LogBins, Names, PoolCounts, rows
from jetmap.wire.messages import ErrorRecord, Report, ReportCounts, encode


def test_names_are_bounded() -> None:
    names = Names(2)
    assert [names.of(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_an_agent_counts_outcomes_and_crashes() -> None:
    counts = AgentCounts()
    counts.outcomes("f", 10, ["raised", "raised", "invalid"], 0.2)
    counts.outcomes("f", 1, ["timeout"])
    counts.crash("f", "SIGSEGV")
    assert counts.items == {
        ("f", "ok"): 7,
        ("f", "raised"): 2,
        ("f", "invalid"): 1,
        ("f", "timeout"): 1,
    }
    found = counts.functions["f"]
    assert (found.bins.counts, found.seconds) == ({43: 10, 0: 1}, 0.2)
    counts.outcomes("f", 0, ["again"])
    assert (counts.items["f", "again"], counts.items["f", "ok"]) == (1, 7)
    assert rows(counts.crashes) == [("f", "SIGSEGV", 1)]
    for number in range(5000):
        counts.outcomes(f"name-{number}", 1, [])
    assert len({function for function, _ in counts.items}) <= 201


def test_a_pool_only_grows() -> None:
    """Agents come, go, and are heard again, late or twice."""
    pool = PoolCounts()
    pool.heard("a", [("f", "ok", 5)], [], 1, 0)
    pool.heard("b", [("f", "ok", 2)], [("f", "SIGSEGV", 1)], 0, 2)
    assert pool.items["f", "ok"] == 7
    pool.heard("a", [("f", "ok", 9)], [], 1, 0)
    pool.heard("a", [("f", "ok", 6)], [], 1, 0)  # An announcement that was overtaken.
    pool.heard("a", [("f", "ok", 10)], [], 2, 0)
    assert pool.items["f", "ok"] == 12
    assert (pool.crashes["f", "SIGSEGV"], dict(pool.workers)) == (
        1,
        {"recycled": 2, "start_failures": 2},
    )
    for number in range(12_000):
        pool.heard(f"agent-{number}", [(f"f{number}", "ok", 1)], [], 0, 0)
    assert len(pool.items) < 300 and len(pool._last) <= 10_000


def test_an_agent_reads_the_kinds_of_a_report() -> None:
    errors = [ErrorRecord(1, "raised", "E", "m"), ErrorRecord(2, "invalid", "E", "m", "trace")]
    report = Report("m", 1, 1, 0, 3, b"[1,null,null]", errors, 0.5)
    read = msgspec.msgpack.decode(encode(report), type=ReportCounts)
    assert (read.seconds, read.count, [error.kind for error in read.errors]) == (
        0.5,
        3,
        ["raised", "invalid"],
    )


def test_bins_of_seconds_are_of_equal_ratio() -> None:
    bins = LogBins()
    for seconds in (0.0, 1e-6, 0.0199, 0.02, 0.99, 1.0, 1.25, 1.26, 1e9):
        bins.add(seconds)
    bins.add(0.02, 4)
    assert bins.counts == {0: 2, 42: 1, 43: 5, 59: 1, 60: 2, 61: 1, 110: 1}
    for number in bins.counts:
        if 0 < number < 110:
            middle = LogBins()
            middle.add(10 ** ((number - 60 + 0.5) / 10))
            assert middle.counts == {number: 1}
