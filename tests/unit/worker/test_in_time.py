"""Code of users runs in its own item's time, also while that is decoded or encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from jetmap.functions.batching import Batching
from jetmap.functions.task import Function
from jetmap.wire.messages import Chunk, Format, Report
from jetmap.worker.batches import BatchComputation
from jetmap.worker.compute import Limits, compute
from jetmap.worker.progress import ProgressPages

START = 100
LIMITS = Limits(value=10_000, report=2_000, report_seconds=3600.0)
pages: ProgressPages
seen: list[tuple[str, int, int | None, bool]] = []  # Event, its number, the item in progress, cold.


@pytest.fixture(autouse=True)
def progress() -> Iterator[ProgressPages]:
    global pages
    seen.clear()
    pages = ProgressPages.create()
    yield pages
    pages.close()


def note(what: str, n: int) -> None:
    seen.append((what, n, pages.item, pages.is_cold))


class Noting:
    """Note where it is loaded and pickled."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __getstate__(self) -> int:
        note("encoded", self.n)
        if self.n < 0:
            raise OSError("not this one")
        return self.n

    def __setstate__(self, n: int) -> None:
        self.n = n
        note("decoded", n)
        if n == 13:
            raise OSError("no thirteen")


@dataclasses.dataclass
class Checked:
    n: int

    def __post_init__(self) -> None:
        note("decoded", self.n)


def called(x):  # type: ignore[no-untyped-def]
    note("called", x.n)
    return Noting(x.n + 1) if x.n != 3 else Noting(-1)


def plain(x):  # type: ignore[no-untyped-def]
    return {"n": [x]}


def typed(x: Checked, *, beside: Any = None) -> int:
    return x.n


def all_of(xs):  # type: ignore[no-untyped-def]
    return [Noting(x.n + 1) for x in xs]


def chunk_of(function: Function, items: list[Any], format: Format, **options: Any) -> Chunk:
    fields: dict[str, Any] = {
        "map": "m", "number": 1, "attempt": 1, "function": "f", "format": format,
        "start": START, "count": len(items), "inbox": "", "timeout": 5.0, "budget": 0.0,
        "items": function.item.encode_list(items, format),
    }  # fmt: skip
    seen.clear()
    return Chunk(**(fields | options))


def run(function: Function, chunk: Chunk) -> tuple[list[Any], dict[int, str]]:
    """Return the values of a chunk, and the kinds of its errors."""
    reports: list[Report] = []
    compute(chunk, function, pages, reports.append, LIMITS)
    return outcomes(function, chunk, reports)


def outcomes(
    function: Function, chunk: Chunk, reports: list[Report]
) -> tuple[list[Any], dict[int, str]]:
    computed = list(seen)
    values = [v for r in reports for v in function.value.decode_list(r.values, chunk.format)]
    seen[:] = computed
    return values, {error.index: error.kind for r in reports for error in r.errors}


def test_pickles_are_loaded_and_written_in_their_item() -> None:
    function = Function(called).pickling()
    chunk = chunk_of(function, [Noting(1), Noting(13), Noting(3), Noting(4)], "pickle")
    values, errors = run(function, chunk)
    assert [value and value.n for value in values] == [2, None, None, 5]
    assert errors == {START + 1: "invalid", START + 2: "unencodable"}
    assert [(what, n, item) for what, n, item, _ in seen] == [
        *(("decoded", 1, START), ("called", 1, START), ("encoded", 2, START)),
        ("decoded", 13, START + 1),
        *(("decoded", 3, START + 2), ("called", 3, START + 2)),
        *[("encoded", -1, START + 2)] * (len(seen) - 9),
        *(("decoded", 4, START + 3), ("called", 4, START + 3), ("encoded", 5, START + 3)),
    ]
    assert pages.item is None


def test_without_a_timeout_lists_are_decoded_and_encoded_whole() -> None:
    function = Function(called).pickling()
    chunk = chunk_of(function, [Noting(1), Noting(2)], "pickle", timeout=None)
    values, errors = run(function, chunk)
    assert [value.n for value in values] == [2, 3] and not errors
    assert [what for what, *_ in seen] == ["decoded"] * 2 + ["called"] * 2 + ["encoded"] * 2


def test_builtins_travel_in_runs_all_the_same() -> None:
    function = Function(plain).pickling()
    items = [{"a": n} for n in range(100)]
    chunk = chunk_of(function, items, "pickle")
    values, errors = run(function, chunk)
    assert values == [{"n": [item]} for item in items] and not errors
    reports: list[Report] = []
    compute(chunk_of(function, items, "pickle"), function, pages, reports.append, LIMITS)
    size = sum(len(report.values) for report in reports)
    assert size == len(function.value.encode_list(values, "pickle"))


def test_code_of_annotated_classes() -> None:
    function = Function(typed)
    formats: list[Format] = ["json", "msgpack"]
    for format in formats:
        chunk = chunk_of(function, [Checked(1), Checked(2)], format)
        assert run(function, chunk) == ([1, 2], {})
        assert [(n, item) for _, n, item, _ in seen] == [(1, START), (2, START + 1)]


def test_keyword_parameters_are_decoded_as_in_a_first_call() -> None:
    function = Function(typed).pickling()
    kwargs = function.kwargs.encode({"beside": Noting(7)}, "pickle")
    chunk = chunk_of(function, [Checked(1)], "pickle", kwargs=kwargs)
    assert run(function, chunk) == ([1], {})
    assert seen == [("decoded", 7, START, True), ("decoded", 1, START, False)]


def test_a_batch_is_decoded_and_encoded_in_its_call() -> None:
    function = Function(all_of, batching=Batching(2)).pickling()
    items = [Noting(1), Noting(13), Noting(3)]
    chunk = chunk_of(function, items, "pickle")
    reports: list[Report] = []
    BatchComputation([chunk], function, pages, [reports.append], LIMITS).compute()
    values, errors = outcomes(function, chunk, reports)
    assert [value and value.n for value in values] == [2, None, 4]
    assert errors == {START + 1: "invalid"}
    assert [(what, n, item) for what, n, item, _ in seen] == [
        *(("decoded", 1, START), ("decoded", 13, START), ("encoded", 2, START)),
        *(("decoded", 3, START + 2), ("encoded", 4, START + 2)),
    ]
