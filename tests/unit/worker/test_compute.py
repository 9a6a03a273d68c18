"""The parts of a worker: computing a chunk, its progress in shared memory, its pipe."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.functions.retries import RetryPolicy
from jetmap.functions.task import Function
from jetmap.wire import arrays
from jetmap.wire.budget import Budget
from jetmap.wire.messages import Chunk, ErrorRecord, Format, Report
from jetmap.wire.scattered import LEAST, Scattered
from jetmap.worker.aftermath import Aftermath, WorkerAftermath
from jetmap.worker.compute import STRETCH, Limits, compute, refuse_chunk
from jetmap.worker.progress import ITEM, STOP, STRETCH_SHIFT, ProgressPages

quick = examples(100)

FORMATS: list[Format] = ["json", "msgpack"]
both_formats = pytest.mark.parametrize("format", FORMATS)
REPORT, VALUE = 2000, 3000
VALUE_LIMIT, REPORT_LIMIT = 900_000, 262_144
SLACK = 200  # Bytes of a report beside its values and errors.


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


# What an item asks the function for, and the kind of error that it becomes.
OUTCOMES = {
    "raise": "raised",
    "exit": "raised",
    "interrupt": "raised",
    "unprintable": "raised",
    "surrogate": "raised",
    "long": "raised",
    "foreign": "raised",
    "recurse": "raised",
    "object": "unencodable",
    "nan": "unencodable",
    "huge": "unencodable",
    "wrong": "invalid",
}


def recurse(item: str) -> Any:
    return recurse(item)  # Python 3.13.0 limits no recursion of functions with defaults.


def perform(item: str, *, times: int = 1) -> Any:
    match item:
        case "raise":
            raise ValueError("it cannot")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "unprintable":
            raise Unprintable
        case "surrogate":
            raise ValueError("\ud800")
        case "long":
            raise ValueError("长" * 5000)
        case "foreign":
            raise ValueError("长" * 150)
        case "recurse":
            return recurse(item)
        case "object":
            return object()
        case "nan":
            return [1.0, math.nan]
        case "huge":
            return "y" * (VALUE + 1)
        case "big":
            return "y" * (VALUE - 10)
        case _:
            return item * times


FUNCTION = Function(perform)


class FakeProgress:
    """A ``ProgressPages`` in plain memory, that asks to stop before the n-th item. seconds: of
    each item."""

    exact: Callable[[], int] | None = None

    def __init__(self, stop_before: int | None = None, seconds: float = 0.0) -> None:
        self.stop_before = stop_before
        self.seconds = seconds
        self.entered: list[int] = []
        self.sizes: list[int] = []  # Items that were entered at once, each time.
        self.expected: list[tuple[float, float]] = []
        self.inside = False

    @property
    def words(self) -> FakeProgress:
        return self

    def __getitem__(self, word: int) -> int:
        assert word == STOP
        return self.stop_before is not None and len(self.entered) > self.stop_before

    def __setitem__(self, word: int, number: int) -> None:
        if word == ITEM:
            self.sizes.append((number >> STRETCH_SHIFT) + 1)
            self.entered.append((number & ((1 << STRETCH_SHIFT) - 1)) - 1)
            self.inside = True
            time.sleep(self.seconds)

    def expect(self, at: float, each: float) -> None:
        self.expected.append((at, each))

    def leave(self) -> None:
        self.inside = False


def encode(value: Any, format: Format) -> bytes:
    return msgspec.json.encode(value) if format == "json" else msgspec.msgpack.encode(value)


def decode(data: bytes, format: Format) -> Any:
    return msgspec.json.decode(data) if format == "json" else msgspec.msgpack.decode(data)


def chunk_of(given: list[Any], format: Format, **options: Any) -> Chunk:
    fields: dict[str, Any] = {
        "map": "m", "number": 3, "attempt": 2, "function": "perform", "format": format,
        "start": 1000, "count": len(given), "inbox": "", "timeout": None, "budget": 0.0,
        "items": encode(given, format),
    }  # fmt: skip
    return Chunk(**(fields | options))


def run(chunk: Chunk, progress: FakeProgress | None = None, **limits: Any) -> list[Report]:
    reports: list[Report] = []
    # No report is due because time has passed: on a busy machine it would be.
    sizes = {"value": VALUE, "report": REPORT, "report_seconds": 3600.0} | limits
    compute(
        chunk,
        FUNCTION,
        progress or FakeProgress(),
        reports.append,
        Limits(**({"value": VALUE_LIMIT, "report": REPORT_LIMIT} | sizes)),
    )
    return reports


def outcomes(chunk: Chunk, reports: list[Report]) -> list[Any]:
    """Value or error of each item; checks that the reports are consecutive and fit."""
    found: list[Any] = []
    at = chunk.start
    for report in reports:
        assert (report.map, report.number, report.attempt) == ("m", 3, 2)
        assert report.start == at
        values = decode(report.values, chunk.format)
        assert len(values) == report.count
        at += report.count
        errors = {record.index: record for record in report.errors}
        assert list(errors) == sorted(errors), "errors are in input order"
        assert set(errors) <= set(range(report.start, at))
        assert all(values[index - report.start] is None for index in errors)
        found += [errors.get(index, value) for index, value in enumerate(values, report.start)]
        size = len(msgspec.msgpack.encode(report))
        assert size <= REPORT + SLACK or report.count == 1
        assert report.seconds >= 0
    assert [report.final is not None for report in reports] == [False] * (len(reports) - 1) + [True]
    final = reports[-1].final
    assert final is not None and final.end == at and final.crash is None
    return found


@both_formats
@examples(50)
@given(
    st.lists(st.sampled_from([*OUTCOMES, "big", "", "a", "bc" * 30]), max_size=30), st.booleans()
)
def test_every_item_has_its_outcome_in_order(
    format: Format, items: list[str], stretches: bool
) -> None:
    given = [7 if item == "wrong" else item for item in items]
    chunk = chunk_of(given, format, stretches=stretches)
    progress = FakeProgress()
    found = outcomes(chunk, run(chunk, progress))

    assert len(found) == len(items)
    entered = zip(progress.entered, progress.sizes, strict=True)
    inside = {index for first, size in entered for index in range(first, first + size)}
    assert inside.issuperset(range(1000, 1000 + len(items))) and not progress.inside
    if not stretches:  # Each is named, the first one of a stretch twice.
        assert list(dict.fromkeys(progress.entered)) == list(range(1000, 1000 + len(items)))
    for index, (item, outcome) in enumerate(zip(items, found, strict=True), 1000):
        if item == "nan" and format == "msgpack":
            assert outcome[0] == 1.0 and math.isnan(outcome[1])
        elif (kind := OUTCOMES.get(item)) is not None:
            assert isinstance(outcome, ErrorRecord)
            assert (outcome.index, outcome.kind) == (index, kind)
        else:
            assert outcome == perform(item)


@both_formats
@quick
@given(
    st.lists(
        st.text(max_size=40).filter(lambda text: text not in {*OUTCOMES, "big"}), max_size=200
    ),
    st.integers(10, 500),
)
def test_reports_are_as_small_as_they_must_be(
    format: Format, items: list[str], report: int
) -> None:
    chunk = chunk_of(items, format)
    reports = run(chunk, report=report)

    assert outcomes(chunk, reports) == items
    assert all(len(r.values) <= report or r.count == 1 for r in reports)


@both_formats
@quick
@given(st.binary(max_size=60), st.integers(0, 5))
def test_garbage_is_an_error_of_each_item(format: Format, data: bytes, count: int) -> None:
    chunk = chunk_of([], format, items=data, count=count)
    found = outcomes(chunk, run(chunk))

    assert len(found) == count
    assert all(isinstance(o, str) or o.kind == "invalid" for o in found)


@both_formats
def test_what_is_nested_too_deeply_is_invalid(format: Format) -> None:
    deep = b"[" * 5000 + b"]" * 5000 if format == "json" else b"\x91" * 5000 + b"\x90"
    chunk = chunk_of([], format, items=arrays.join([deep, deep], format), count=2)

    found = outcomes(chunk, run(chunk))
    assert [outcome.kind for outcome in found] == ["invalid", "invalid"]


@both_formats
@pytest.mark.parametrize("kwargs", [{"times": "3"}, {"unknown": 1}, [1]])
def test_keyword_parameters_that_do_not_fit_fail_every_item(format: Format, kwargs: Any) -> None:
    chunk = chunk_of(["a", "b"], format, kwargs=encode(kwargs, format))
    found = outcomes(chunk, run(chunk))

    assert [outcome.kind for outcome in found] == ["invalid", "invalid"]
    assert "keyword parameters" in found[0].message


@both_formats
def test_keyword_parameters_reach_the_function(format: Format) -> None:
    chunk = chunk_of(["a", 5, "b"], format, kwargs=encode({"times": 2}, format))
    found = outcomes(chunk, run(chunk))
    assert (found[0], found[1].kind, found[2]) == ("aa", "invalid", "bb")


@quick
@given(st.integers(0, 20), st.integers(0, 25))
def test_a_stop_is_obeyed_before_the_next_item(count: int, before: int) -> None:
    progress = FakeProgress(stop_before=before)
    chunk = chunk_of(["x"] * count, "json")
    found = outcomes(chunk, run(chunk, progress, report_seconds=0.0))
    assert found == ["x"] * min(count, before)


@quick
@given(st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_a_stop_is_obeyed_before_the_next_stretch(count: int, before: int, known: bool) -> None:
    progress = FakeProgress(stop_before=before)
    chunk = chunk_of(["x"] * count, "json", stretches=not known)
    reports = run(chunk, progress)
    assert reports[-1].final is not None
    ended = reports[-1].final.end - chunk.start
    assert outcomes(chunk, reports) == ["x"] * ended
    assert ended == count or len(progress.entered) > before, "it ended early for no reason"
    assert not known or ended <= before


@quick
@given(st.integers(0, 20))
def test_a_budget_is_kept_but_one_item_is_always_done(count: int) -> None:
    chunk = chunk_of(["x"] * count, "json", budget=1e-9)
    assert outcomes(chunk, run(chunk)) == ["x"] * min(count, 1)


@quick
@given(st.integers(0, 20), st.floats(0.5, 5), st.floats(0.1, 2))
def test_a_chunk_says_until_when_it_may_begin_another_item(
    count: int, seconds: float, each: float
) -> None:
    progress = FakeProgress()
    chunk = chunk_of(["x"] * count, "json", budget=seconds, each=each)
    before = time.monotonic()
    assert outcomes(chunk, run(chunk, progress)) == ["x"] * count
    if count < 2:
        assert not progress.expected, "there is nothing to give back"
        return
    ((at, growth),) = progress.expected
    assert growth == each
    assert before <= at - Budget(seconds, each).until(1) <= time.monotonic()


@pytest.mark.parametrize(("each", "done"), [(0.0, 1), (0.001, 1), (1000.0, 20)])
def test_a_guessed_chunk_has_to_keep_up_with_its_guess(each: float, done: int) -> None:
    chunk = chunk_of(["x"] * 20, "json", budget=1e-9, each=each)
    late = FakeProgress(seconds=0.01)  # In each item.
    assert outcomes(chunk, run(chunk, late)) == ["x"] * done


class FrozenClock:
    """A clock that only moves by what items take. seconds: of each item."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.now = 100.0
        self.seconds = seconds
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def __call__(self, item: int) -> int:
        self.now += self.seconds.get(item, 1e-7)
        return -item


def stretches_of(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    seconds: dict[int, float],
    aftermath: Aftermath | None = None,
    *,
    body: Callable[[int], None] = lambda item: None,
    **options: Any,
) -> tuple[list[tuple[int, int]], list[Any]]:
    """Compute the items 0, 1, ...; return where each stretch began and its size, and the values."""
    clock, progress, reports = FrozenClock(monkeypatch, seconds), FakeProgress(), list[Report]()

    def f(item: int) -> int:
        body(item)
        return clock(item)

    fields: dict[str, Any] = {"stretches": True} | options
    chunk = chunk_of(list(range(count)), "msgpack", start=0, **fields)
    limits = Limits(value=VALUE_LIMIT, report=REPORT_LIMIT, report_seconds=3600.0)
    compute(chunk, Function(f), progress, reports.append, limits, aftermath or Aftermath())
    values = [value for report in reports for value in decode(report.values, "msgpack")]
    return list(zip(progress.entered, progress.sizes, strict=True)), values


def test_tiny_items_are_entered_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found, values = stretches_of(monkeypatch, 127, {})
    assert [size for _, size in found] == [1, 2, 4, 8, 16, *[STRETCH] * 3]
    assert sum(size for _, size in found) == 127, "none behind the chunk"
    assert [first for first, _ in found] == [0, 1, 3, 7, 15, *range(31, 127, STRETCH)]
    assert values == [-item for item in range(127)]


def test_items_that_take_longer_are_entered_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found, values = stretches_of(monkeypatch, 40, {item: 0.001 for item in range(20, 40)})
    sizes = dict(found)
    assert sizes[15] == 16, "it holds the first of them"
    assert found[5:] == [(item, 1) for item in range(31, 40)]
    assert values == [-item for item in range(40)]


def test_items_with_a_timeout_are_entered_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = stretches_of(monkeypatch, 40, {}, timeout=5.0)
    assert found == [(item, 1) for item in range(40)]


def test_items_that_must_be_known_are_entered_together_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, values = stretches_of(monkeypatch, 127, {}, stretches=False)
    # The first one of a stretch is entered twice.
    assert list(dict.fromkeys(found)) == [(item, 1) for item in range(127)]
    assert len(found) - 127 == len([1, 2, 4, 8, 16, *[STRETCH] * 3]) - 1
    assert values == [-item for item in range(127)]


def test_a_stop_is_obeyed_before_the_next_item_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of a stretch may take long, and those behind it be computed elsewhere meanwhile."""

    class Asked(FakeProgress):
        def __getitem__(self, word: int) -> int:
            return self.entered[-1] >= 40

    clock, reports = FrozenClock(monkeypatch, {}), list[Report]()

    def f(item: int) -> int:
        return clock(item)

    chunk = chunk_of(list(range(100)), "msgpack", start=0)
    limits = Limits(value=VALUE_LIMIT, report=REPORT_LIMIT, report_seconds=3600.0)
    compute(chunk, Function(f), Asked(), reports.append, limits)
    assert [report.final and report.final.end for report in reports] == [40]


@pytest.mark.parametrize(("seconds", "known"), [(1e-6, False), (1e-5, True)])
def test_items_are_named_within_a_stretch_where_that_costs_little(
    monkeypatch: pytest.MonkeyPatch, seconds: float, known: bool
) -> None:
    found, _ = stretches_of(monkeypatch, 60, dict.fromkeys(range(60), seconds))
    assert (len({item for item, _ in found}) == 60) == known
    assert max(size for _, size in found) == (1 if known else 29)  # What is left then.


def test_items_that_raise_make_none_behind_them_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch that ended early has taken less than it was meant to."""
    clock, progress, reports = FrozenClock(monkeypatch, {}), FakeProgress(), list[Report]()

    def f(item: int) -> int:
        clock.now += 6e-6
        if item % 7 == 3:
            raise ValueError
        return item

    chunk = chunk_of(list(range(500)), "msgpack", start=0, stretches=True)
    limits = Limits(value=VALUE_LIMIT, report=1 << 20, report_seconds=3600.0)
    compute(chunk, Function(f), progress, reports.append, limits)
    assert set(progress.sizes) == {1} and set(progress.entered) == set(range(500))


def test_an_item_that_leaves_work_ends_its_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []

    def settle() -> bool:
        settled.append(latest[0])
        return False

    latest, aftermath = [0], WorkerAftermath()
    aftermath.steps = [settle]

    def body(item: int) -> None:
        latest[0] = item
        if item in (20, 21):
            aftermath.needed()

    _, values = stretches_of(monkeypatch, 40, {}, aftermath, body=body)
    assert settled == [20, 21]
    assert values == [-item for item in range(40)]


@pytest.mark.parametrize("stretches", [True, False])
def test_the_worker_knows_the_item_within_a_stretch(stretches: bool) -> None:
    pages, seen = ProgressPages.create(), list[int | None]()

    def look(item: int) -> None:
        seen.append(pages.item)
        first, size = pages.stretch
        assert first is not None and first <= item < first + size <= 50
        assert stretches or size == 1, "its agent knows it, too"

    chunk = chunk_of(list(range(50)), "msgpack", start=0, stretches=stretches)
    limits = Limits(value=VALUE_LIMIT, report=REPORT_LIMIT, report_seconds=3600.0)
    compute(chunk, Function(look), pages, print, limits)
    assert seen == list(range(50))
    pages.close()


@pytest.mark.parametrize("stretches", [True, False])
def test_what_an_item_left_is_done_while_it_is_still_known(stretches: bool) -> None:
    """Output is marked with its item, also that of a stream that is flushed after the item."""
    pages, seen = ProgressPages.create(), list[int | None]()
    aftermath = WorkerAftermath()

    def step() -> bool:
        seen.append(pages.item)
        return True  # From now on, after each item.

    def body(item: int) -> None:
        if item == 20:
            aftermath.steps = [step]
            aftermath.needed()

    chunk = chunk_of(list(range(50)), "msgpack", start=0, stretches=stretches)
    limits = Limits(value=VALUE_LIMIT, report=REPORT_LIMIT, report_seconds=3600.0)
    compute(chunk, Function(body), pages, lambda report: None, limits, aftermath)
    assert seen == list(range(20, 50))
    pages.close()


def test_a_long_chunk_reports_as_it_goes() -> None:
    chunk = chunk_of(["x"] * 20, "json")
    reports = run(chunk, report_seconds=0.0)
    assert outcomes(chunk, reports) == ["x"] * 20
    assert len(reports) == 20  # The last value comes with the end of the chunk.


def test_a_traceback_begins_in_the_users_own_code() -> None:
    (record,) = outcomes(chunk := chunk_of(["raise"], "json"), run(chunk))
    assert record.message == "it cannot" and record.type == "ValueError"
    assert "in perform" in record.traceback and "worker/compute.py" not in record.traceback


@both_formats
@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_refused_chunk_fails_item_by_item(format: Format, count: int) -> None:
    chunk = chunk_of(["x"] * count, format)
    reports: list[Report] = []
    refuse_chunk(
        chunk,
        None,
        LookupError("长" * 500),
        reports.append,
        Limits(value=VALUE_LIMIT, report=REPORT, report_seconds=3600.0),
    )
    found = outcomes(chunk, reports)
    assert [record.index for record in found] == list(range(1000, 1000 + count))
    assert all(record.type == "LookupError" for record in found)


# Trying again

CALLS: dict[str, int] = {}


def _flaky(item: str) -> str:
    CALLS[item] = CALLS.get(item, 0) + 1
    if item.startswith("bad"):
        raise ValueError(item)
    if item.startswith("fatal"):
        raise KeyError(item)
    return item


FLAKY = Function(_flaky, retry=RetryPolicy(2, ValueError, backoff=4.0))


def flaky(items: list[str], tries: int, format: Format = "json") -> list[Report]:
    reports: list[Report] = []
    chunk = chunk_of(items, format, start=10, tries=tries)
    compute(
        chunk,
        FLAKY,
        FakeProgress(),
        reports.append,
        Limits(value=VALUE, report=REPORT, report_seconds=3600.0),
    )
    return reports


@quick
@given(st.lists(st.sampled_from(["a", "bad", "fatal"]), max_size=30), st.sampled_from(FORMATS))
def test_items_to_try_again_have_no_outcome(items: list[str], format: Format) -> None:
    reports = flaky(items, 0, format)
    found: dict[int, Any] = {}
    again: dict[int, ErrorRecord] = {}
    at = 10
    for report in reports:
        assert report.start >= at
        at = report.start + report.count
        if not report.count:
            again |= {record.index: record for record in report.errors}
            continue
        errors = {record.index: record.kind for record in report.errors}
        values = decode(report.values, format)
        found |= {i: errors.get(i, v) for i, v in enumerate(values, report.start)}
    expected = dict(enumerate(items, 10))
    kinds = {"a": "a", "fatal": "raised"}
    assert found == {i: kinds[item] for i, item in expected.items() if item != "bad"}
    assert set(again) == {i for i, item in expected.items() if item == "bad"}
    for record in again.values():
        assert (record.kind, record.type) == ("again", "ValueError")
        assert record.detail is not None and record.detail["tries"] == 1
        assert 0 <= record.detail["wait"] <= 4
    assert reports[-1].final is not None and reports[-1].final.end == at == 10 + len(items)


@pytest.mark.parametrize("tries", [0, 1, 2])
def test_the_last_try_gives_the_outcome(tries: int) -> None:
    (*_, last) = flaky(["bad"], tries)
    (record,) = last.errors
    assert record.detail is not None and record.detail["tries"] == tries + 1
    assert (last.count, record.kind) == ((1, "raised") if tries == 2 else (0, "again"))
    (value,) = flaky(["a"], tries)
    assert value.tries == tries + 1


def test_a_dispatcher_that_cannot_repeat_gets_the_error() -> None:
    (report,) = flaky(["bad", "a"], -1)
    assert [record.kind for record in report.errors] == ["raised"] and report.tries == 1


@both_formats
def test_without_values_nothing_is_encoded(format: Format) -> None:
    chunk = chunk_of(["a", "object", "huge", "raise", "nan"], format, values=False)
    found = outcomes(chunk, run(chunk))
    assert [getattr(each, "kind", each) for each in found] == [None, None, None, "raised", None]
    plain = chunk_of(["a", "object", "nan"], format, values=False)
    (report,) = run(plain)
    assert decode(report.values, format) == [None] * 3 and not report.errors


def _with_object(item: threading.Lock) -> int:
    return 1


@both_formats
def test_a_function_whose_type_cannot_travel_refuses_each_item(format: Format) -> None:
    reports: list[Report] = []
    chunk = chunk_of(["a", "b"], format)
    limits = Limits(value=VALUE, report=REPORT, report_seconds=3600.0)
    compute(chunk, Function(_with_object), FakeProgress(), reports.append, limits)
    found = outcomes(chunk, reports)
    assert [record.kind for record in found] == ["invalid"] * 2
    assert all("_with_object (item: " in record.message for record in found)


def _untyped(item):  # type: ignore[no-untyped-def]
    return threading.Lock() if item == "lock" else item


@both_formats
def test_a_value_that_only_an_annotation_could_show_names_it(format: Format) -> None:
    reports: list[Report] = []
    chunk = chunk_of(["a", "lock"], format)
    compute(
        chunk,
        Function(_untyped),
        FakeProgress(),
        reports.append,
        Limits(value=99, report=99, report_seconds=3600.0),
    )
    value, record = outcomes(chunk, reports)
    assert value == "a" and record.kind == "unencodable"
    assert "annotate what _untyped returns" in record.message and record.detail == {"untyped": True}


def _send_back(item: bytes) -> bytes:
    return item


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("scatters", [False, True])
def test_items_that_were_decoded_before_are_computed_and_large_values_stay_in_place(
    scatters: bool, timeout: float | None
) -> None:
    items, reports = [b"x" * LEAST, b"y" * LEAST], list[Report]()
    chunk = chunk_of(items, "msgpack", items=b"not read", timeout=timeout)
    sizes = {"value": VALUE_LIMIT, "report": REPORT_LIMIT}
    limits = Limits(**sizes, report_seconds=3600.0, scatters=scatters)
    compute(chunk, Function(_send_back), FakeProgress(), reports.append, limits, decoded=items)
    (report,) = reports
    assert (type(report.values) is Scattered) == scatters
    assert bytes(report.values) == encode(items, "msgpack") and not report.errors
