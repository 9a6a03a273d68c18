"""Work that an item leaves: its steps, its warm-up, and a forked child's end."""

from __future__ import annotations

import pytest

from jetmap.worker.aftermath import Aftermath, WorkerAftermath


def test_an_item_that_is_refused_is_not_a_first_call() -> None:
    aftermath = WorkerAftermath()
    warmed: list[float] = []
    aftermath.begin(warmed.append)
    aftermath.failed(ValueError("does not fit"), refused=True)
    assert aftermath.due and not aftermath.settle(0.1)
    assert aftermath.due, "the next one may be"
    assert aftermath.settle(3.0) and warmed == [3.0]
    assert not aftermath.due


def test_an_item_that_raises_is_a_first_call() -> None:
    aftermath = WorkerAftermath()
    warmed: list[float] = []
    aftermath.begin(warmed.append)
    aftermath.failed(ValueError("no"), refused=False)
    assert aftermath.settle(3.0) and warmed == [3.0]


def test_steps_run_after_an_item_that_needs_them_and_as_long_as_they_ask() -> None:
    aftermath = WorkerAftermath()
    again = [True, False]
    calls: list[str] = []
    aftermath.steps = [
        lambda: bool(calls.append("a")) or again.pop(0),
        lambda: bool(calls.append("b")),
    ]
    assert not aftermath.due
    aftermath.needed()
    assert not aftermath.settle(0.0) and aftermath.due, "the first step asks for the next item"
    assert not aftermath.settle(0.0) and not aftermath.due
    assert calls == ["a", "b", "a", "b"]


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_a_forked_child_ends_with_its_item(error: ValueError | None) -> None:
    aftermath = WorkerAftermath()
    ends: list[BaseException | None] = []
    aftermath.end_with(ends.append)
    assert aftermath.due
    if error is not None:
        aftermath.failed(error, refused=False)
    aftermath.settle(0.0)
    assert ends[0] is error


def test_without_a_worker_nothing_is_due() -> None:
    aftermath = Aftermath()
    aftermath.failed(ValueError(), refused=False)
    assert not aftermath.due and not aftermath.settle(1.0)
