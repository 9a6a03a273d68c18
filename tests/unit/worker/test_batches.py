"""Calls that take several items: what they are called with, halving, and each chunk's reports."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap import Cluster, task
from jetmap.functions.batching import Batching
from jetmap.functions.retries import RetryPolicy
from jetmap.functions.task import Function
from jetmap.wire.messages import Chunk, ErrorRecord, Report, encode
from jetmap.worker.batches import BatchComputation
from jetmap.worker.compute import Limits

SIZE = 8
LIMITS = Limits(value=10_000, report=2_000, report_seconds=3600.0)


class Calls:
    """A function that doubles, fails for some items, and notes what it is called with."""

    def __init__(self, bad: set[int] = frozenset(), wrong: Any = None) -> None:  # type: ignore[assignment]
        self.bad = bad
        self.made: list[list[int]] = []
        self.retry: RetryPolicy | None = None
        self.wrong = wrong

    def function(self) -> Function:
        def double(items: list[int], *, by: int = 2) -> list[int]:
            self.made.append(items)
            if self.wrong is not None:
                return self.wrong(items)  # type: ignore[no-any-return]
            if bad := self.bad.intersection(items):
                raise ValueError(f"{min(bad)} is bad")
            return [by * item for item in items]

        return Function(double, batching=Batching(SIZE), retry=self.retry)


class FakeProgress:
    """Progress in plain memory; ``stop_before`` the n-th call."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.stop_before = stop_before
        self.begun = 1
        self.entered: list[tuple[int, int, int]] = []  # Chunk, item, number of items.
        self.inside = False

    @property
    def stopping(self) -> bool:
        return self.stop_before is not None and len(self.entered) > self.stop_before

    def begin(self, number: int) -> bool:
        self.begun = number
        return True

    def expect(self, at: float, each: float) -> None: ...

    def enter_call(self, item: int, items: int, started_ns: int = 0) -> None:
        self.entered.append((self.begun, item, items))
        self.inside = True

    def leave(self) -> None:
        self.inside = False


def run(
    chunks: list[list[Any]],
    calls: Calls,
    *,
    skip: int = 0,
    runs: list[int] = [],  # noqa: B006
    progress: FakeProgress | None = None,
    **fields: Any,
) -> list[list[Report]]:
    """Compute chunks; return the reports of each. A chunk starts at a hundred times its number."""
    made = [
        Chunk(
            *(f"m{number}", 1, 1, "double", "msgpack", 100 * number, len(items), "i", None, 0.0),
            encode(items),
            **fields,
        )
        for number, items in enumerate(chunks)
    ]
    reports: list[list[Report]] = [[] for _ in chunks]
    progress = progress or FakeProgress()
    emits = [each.append for each in reports]
    batch = BatchComputation(made, calls.function(), progress, emits, LIMITS, skip=skip, runs=runs)
    batch.compute()
    assert not progress.inside
    return reports


def outcomes(reports: list[Report]) -> tuple[list[Any], dict[int, ErrorRecord]]:
    """Return the values of a chunk's reports, which must be in order, and its errors."""
    values: list[Any] = []
    start = reports[0].start
    for report in reports:
        assert report.start == start + len(values)
        values += msgspec.msgpack.decode(report.values)
    assert [report.final is not None for report in reports] == [False] * (len(reports) - 1) + [True]
    return values, {error.index: error for report in reports for error in report.errors}


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=9), min_size=1, max_size=6),
       st.sets(st.integers(0, 50), max_size=5))  # fmt: skip
@examples(150)
def test_each_item_has_the_outcome_that_it_has_alone(
    chunks: list[list[int]], bad: set[int]
) -> None:
    calls = Calls(bad)
    for number, reports in enumerate(run(chunks, calls, runs=[sum(map(len, chunks))])):
        items = chunks[number]
        values, errors = outcomes(reports)
        assert values == [None if item in bad else 2 * item for item in items]
        assert set(errors) == {100 * number + i for i, item in enumerate(items) if item in bad}
        assert all(error.message == f"{items[at - 100 * number]} is bad"
                   for at, error in errors.items())  # fmt: skip
    assert all(len(call) <= SIZE for call in calls.made)


def test_one_bad_item_is_found_by_halving() -> None:
    calls = Calls({5})
    ((reports,),) = [run([list(range(8))], calls)]
    assert outcomes(reports)[0] == [0, 2, 4, 6, 8, None, 12, 14]
    assert list(map(len, calls.made)) == [8, 4, 4, 2, 1, 1, 2]


def test_an_item_that_does_not_fit_is_in_no_call() -> None:
    calls = Calls()
    (reports,) = run([[1, "two", 3]], calls)
    values, errors = outcomes(reports)
    assert values == [2, None, 6] and calls.made == [[1, 3]]
    assert errors[1].kind == "invalid"
    (reports,) = run([["one"]], calls)
    assert outcomes(reports)[1][0].kind == "invalid" and calls.made == [[1, 3]]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda items: items[1:], "double returned 2 values for 3 items: a batch function returns"),
        (
            tuple,
            "double returned a tuple for 3 items: a batch function returns a list or a NumPy array "
            "with one value for each item: return list(…) of it, or list(zip(*…)) if each item has",
        ),
        (
            np.ma.array,
            "double returned a MaskedArray for 3 items: a batch function returns a list or a NumPy "
            "array with one value for each item: return numpy.asarray(…) of it; all",
        ),
        (
            lambda items: np.array(3),
            "double returned an ndarray for 3 items: a batch function returns a list or a NumPy "
            "array with one value for each item, and this one is of shape (); all",
        ),
        (lambda items: np.ones((4, 3)), "double returned 4 values (an array of shape (4, 3)) for "),
        (lambda items: None, "double returned None for 3 items"),
    ],
)
def test_an_answer_of_another_length_fails_the_call_and_is_not_halved(
    wrong: Any, text: str
) -> None:
    calls = Calls(wrong=wrong)
    (reports,) = run([[1, 2, 3]], calls)
    values, errors = outcomes(reports)
    assert len(calls.made) == 1 and values == [None] * 3
    assert all(e.kind == "raised" and e.message.startswith(text) for e in errors.values())
    assert "all 3 items of the call fail" in errors[0].message


def test_the_rows_of_an_array_are_its_values() -> None:
    (reports,) = run([[1, "two", 3]], Calls(wrong=np.array))
    assert outcomes(reports)[0] == [1, None, 3]


OUT = np.zeros((2, 2))  # Used for the values of every call.


@task(batch=2, name="arrays.lists")
def lists_of_rows(items: list[int]) -> list[list[float]]:
    return np.array([[item, item + 0.5] for item in items])  # type: ignore[return-value]


@task(batch=2, name="arrays.rows")
def rows(items: list[int]) -> np.ndarray[Any, Any]:
    OUT[:] = [[item, item + 0.5] for item in items]
    return OUT


@task(batch=2, name="arrays.scalars")
def scalars(items: list[int]):  # type: ignore[no-untyped-def]
    return np.array(items, np.float32)


def test_rows_take_the_type_of_their_annotation_and_outlive_the_call() -> None:
    with Cluster(inline=True).sync as cluster:
        values = cluster.map(lists_of_rows, range(4))
        assert values == [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]
        assert {type(number) for row in values for number in row} == {float}
        arrays = cluster.map(rows, range(4))
        assert [type(row) for row in arrays] == [np.ndarray] * 4
        assert [row.tolist() for row in arrays] == values
        assert [type(value) for value in cluster.map(scalars, range(2))] == [np.float32] * 2


@pytest.mark.parametrize("change", [list.clear, list.pop, lambda items: items.append(7)])
@pytest.mark.parametrize("item", [2, "two"])
def test_a_function_may_change_its_list(change: Any, item: Any) -> None:
    def changing(items: list[int]) -> list[int]:
        values = [10 * each for each in items]
        change(items)
        return values

    (reports,) = run([[1, item, 3]], Calls(wrong=changing))
    assert outcomes(reports)[0] == [10, 20 if item == 2 else None, 30]

    def failing(items: list[int]) -> list[int]:
        change(items)
        raise ValueError("no")

    (reports,) = run([[1, item, 3]], Calls(wrong=failing))
    values, errors = outcomes(reports)
    assert values == [None] * 3 and sorted(errors) == [0, 1, 2]


def test_only_the_guilty_item_is_tried_again() -> None:
    calls = Calls({2})
    calls.retry = RetryPolicy(1)
    (reports,) = run([[1, 2, 3]], calls, tries=0)
    again = [report for report in reports if report.errors]
    assert [(error.index, error.kind) for report in again for error in report.errors] == [
        (1, "again")
    ]
    assert sum(report.count for report in reports) == 2


def test_a_split_batch_goes_on_where_it_was() -> None:
    progress, calls = FakeProgress(), Calls()
    first, second = run([[0, 1, 2, 3], [4, 5]], calls, skip=1, runs=[2, 1, 2], progress=progress)
    assert calls.made == [[1, 2], [3], [4, 5]]
    assert progress.entered == [(1, 1, 2), (1, 3, 1), (2, 100, 2)]
    assert outcomes(first)[0] == [2, 4, 6] and outcomes(second)[0] == [8, 10]
    assert [report.start for report in first] == [1, 3], "reported before the next call"


def test_a_batch_that_is_to_stop_ends_before_its_next_call() -> None:
    calls = Calls()
    chunks = [[1, 2], [3]]
    first, second = run(chunks, calls, runs=[1, 2], progress=FakeProgress(1))
    assert calls.made == [[1]] and outcomes(first)[0] == [2] and outcomes(second)[0] == []
    assert [r[-1].final.end for r in (first, second) if r[-1].final] == [1, 100]


def test_a_spent_budget_gives_back_whole_calls_but_never_the_first() -> None:
    calls = Calls()
    (reports,) = run([list(range(20))], calls)
    assert list(map(len, calls.made)) == [8, 8, 4]
    calls = Calls({3})
    made = Chunk(*("m", 1, 1, "f", "msgpack", 0, 20, "i", None, 1e-9), encode(list(range(20))))
    reports = []
    BatchComputation([made], calls.function(), FakeProgress(), [reports.append], LIMITS).compute()
    values, errors = outcomes(reports)
    assert len(values) == 8 and list(errors) == [3], "what was halved has its outcomes"


def test_values_that_nobody_wants_are_not_kept() -> None:
    (reports,) = run([[1, 2]], Calls(), values=False)
    assert outcomes(reports)[0] == [None, None]
