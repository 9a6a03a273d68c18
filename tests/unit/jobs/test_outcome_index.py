"""The index of a job's outcomes, against a dictionary that keeps the first one of each item."""

from __future__ import annotations

import pickle
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.jobs.outcome_index import OutcomeIndex
from jetmap.wire.messages import ErrorRecord, Report

quick = examples(80)
ITEMS = 60


def report(start: int, count: int, failing: set[int]) -> Report:
    errors = [
        ErrorRecord(index, "raised", "ValueError", "no")
        for index in sorted(failing)
        if start <= index < start + count
    ]
    values = msgspec.json.encode([None] * count)
    return Report("m", 0, 0, start, count, values, errors, 0.0)


reports = st.lists(
    st.builds(
        report, st.integers(0, ITEMS), st.integers(0, 25), st.sets(st.integers(0, ITEMS + 25))
    ),
    max_size=30,
)
# Other jobs' messages lie between.
steps = st.lists(st.integers(1, 5), min_size=30, max_size=30)


def numbered(found: list[Report], steps: list[int]) -> list[tuple[int, Report]]:
    seq = 0
    result = []
    for each, step in zip(found, steps, strict=False):
        seq += step
        result.append((seq, each))
    return result


class Naive:
    def __init__(self) -> None:
        self.owner: dict[int, int] = {}
        self.failed: set[int] = set()

    def add(self, seq: int, report: Report) -> set[int]:
        fresh = set(range(report.start, report.start + report.count)) - self.owner.keys()
        self.owner |= dict.fromkeys(fresh, seq)
        self.failed |= {e.index for e in report.errors} & fresh
        return fresh


def items(ranges: list[tuple[int, int]]) -> set[int]:
    assert all(a < b for a, b in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    return {index for a, b in ranges for index in range(a, b)}


@quick
@given(reports, steps)
def test_the_first_outcome_of_an_item_wins(found: list[Report], steps: list[int]) -> None:
    index, naive = OutcomeIndex(), Naive()
    history = []
    for seq, each in numbered(found, steps):
        fresh = naive.add(seq, each)
        assert items(index.add(seq, each)) == fresh
        assert (index.last, index.done, index.failed) == (seq, len(naive.owner), len(naive.failed))
        assert items(index.ranges()) == naive.owner.keys()
        history.append((seq, fresh, index.done, index.failed))

    assert index.messages == len(history)
    for item in range(ITEMS + 30):
        piece = index.at(item)
        assert (piece.seq if piece else None) == naive.owner.get(item)
        assert piece is None or piece.start <= item < piece.end
        assert index.covers(item, item + 1) == (item in naive.owner)
    # What an old message won is remembered, and it cannot win again.
    for (seq, fresh, done, failed), each in zip(history, found, strict=True):
        assert items(index.won(seq)) == items(index.add(seq, each)) == fresh
        assert index.won_until(seq) == max(fresh, default=-1) + 1
        assert index.counts_at(seq) == (done, failed)
    assert (index.done, index.failed) == (len(naive.owner), len(naive.failed))
    assert index.counts_at(0) == (0, 0)


@quick
@given(reports, steps, st.integers(0, 30))
def test_adding_some_and_later_all_is_adding_all(
    found: list[Report], steps: list[int], some: int
) -> None:
    messages = numbered(found, steps)
    whole, twice = OutcomeIndex(), OutcomeIndex()
    for seq, each in messages:
        whole.add(seq, each)
    for seq, each in [*messages[:some], *messages[some // 2 :], *messages]:
        twice.add(seq, each)

    assert vars(twice).keys() == vars(whole).keys()
    assert pickle.dumps(twice) == pickle.dumps(whole)


@quick
@given(
    reports,
    steps,
    st.integers(0, ITEMS),
    st.integers(1, 90),
    st.integers(1, 600),
    st.integers(1, 9),
)
def test_a_window_has_the_wanted_message_and_keeps_its_limits(
    found: list[Report], steps: list[int], item: int, more: int, size: int, count: int
) -> None:
    index = OutcomeIndex()
    messages = numbered(found, steps)
    sizes = {}
    for seq, each in messages:
        index.add(seq, each)
        sizes[seq] = len(each.values) + sum(202 for _ in each.errors)
    piece = index.at(item)
    if piece is None:
        return
    first, many = index.window(item, item + more, {piece.seq - 1}, size, count)
    read = [seq for seq, _ in messages if seq >= first][:many]

    assert piece.seq in read and len(read) == many <= count
    assert many == 1 or sum(sizes[seq] for seq in read) <= size
    # Its ends are wanted, each for an item that is asked for.
    for end in (read[0], read[-1]):
        assert any(a < item + more and b > item for a, b in index.won(end))


def test_neighbours_are_read_together_in_whichever_direction_they_lie() -> None:
    for order in (range(10), range(9, -1, -1)):
        index = OutcomeIndex()
        for seq, number in enumerate(order, 1):
            index.add(seq, report(number * 5, 5, set()))

        assert index.window(0, 50, set(), 10_000, 100) == (1, 10)
        first, count = index.window(0, 25, set(), 10_000, 100)
        piece = index.at(0)
        assert piece is not None
        assert (first, count) == ((1, 5) if piece.seq == 1 else (6, 5))


def test_an_index_keeps_no_values() -> None:
    index = OutcomeIndex()
    for seq in range(1, 101):
        index.add(seq, report(seq * 1000, 1000, set()))

    assert index.done == 100_000
    assert len(pickle.dumps(index)) < 100 * 200
    assert b"null" not in pickle.dumps(index)


def test_tries_are_kept_and_are_no_outcomes() -> None:
    index = OutcomeIndex()
    again = ErrorRecord(4, "again", "OSError", "busy", None, {"tries": 1, "wait": 2.5})
    assert index.add(1, Report("m", 1, 1, 5, 0, b"[]", [again], 0.1)) == []
    assert (index.done, index.failed, index.tries) == (0, 0, {4: (1, 2.5)})
    again.detail = {"tries": 2, "wait": 5.0}
    index.add(2, Report("m", 2, 1, 5, 0, b"[]", [again], 0.1))
    assert index.tries == {4: (2, 5.0)} and index.messages == 2
    raised = ErrorRecord(4, "raised", "OSError", "busy", None, {"tries": 3})
    assert index.add(3, Report("m", 3, 1, 4, 1, b"[null]", [raised], 0.1)) == [(4, 5)]
    assert (index.done, index.failed) == (1, 1)
