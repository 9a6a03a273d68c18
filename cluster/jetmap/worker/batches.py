"""Compute chunks whose function takes a list of items: one call for many, halved if it raises.

The chunks of a batch come from several maps, and perhaps from several dispatchers. Each is reported
as if it had been computed alone.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jetmap.functions.task import Function
from jetmap.wire.budget import NO_LIMIT, Budget
from jetmap.wire.messages import Chunk, Final, Report

from .aftermath import Aftermath
from .compute import NO_AFTERMATH, Limits, Part, prepare
from .error_records import DecodingError, Undecodable
from .in_time import TimedPart, loaded, prepare_in_time


class BatchProgress(Protocol):
    """The progress of calls that take several items; ``ProgressPages`` describes the methods."""

    @property
    def stopping(self) -> bool: ...
    def begin(self, number: int) -> bool: ...
    def expect(self, at: float, each: float) -> None: ...
    def enter_call(self, item: int, items: int, started_ns: int = 0) -> None: ...
    def leave(self) -> None: ...


class _Failed:
    """The outcome of an item that has no value."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class BatchComputation:
    """Chunks that are computed together: of one function, with the same keyword parameters.

    Args:
        emits: For each chunk, what takes its reports.
        state: The parameters that the worker passes.
        first: The number under which the worker has begun the first chunk.
        skip: Items of the first chunk that have their outcome already.
        runs: As in ``Together``; empty: any items may share a call.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        function: Function,
        progress: BatchProgress,
        emits: Sequence[Callable[[Report], None]],
        limits: Limits,
        aftermath: Aftermath = NO_AFTERMATH,
        state: Mapping[str, Any] | None = None,
        *,
        first: int = 1,
        skip: int = 0,
        runs: Sequence[int] = (),
    ) -> None:
        assert function.batching is not None
        self._chunks = chunks
        self._name = function.name
        self._is_typed = not function.value.is_open
        self._progress = progress
        self._timed = chunks[0].timeout is not None
        self._limits = limits
        self._aftermath = aftermath
        self._first = first
        self._items: list[Any] = []  # Of all chunks.
        self._ends: list[int] = []  # The end of each chunk in them.
        self._parts: list[Part] = []
        calls: list[Callable[[Any], Any]] = []
        for chunk, emit in zip(chunks, emits, strict=True):
            start = chunk.start + (0 if calls else skip)
            part: Part
            if self._timed:
                part = TimedPart(chunk, function, emit, limits, start)
                call, items = prepare_in_time(
                    chunk, function, part, progress if not calls else None, state
                )
            else:
                part = Part(chunk, function, emit, limits, start)
                call, items = prepare(chunk, function, part, state)
            calls.append(call)
            self._parts.append(part)
            self._items += items
            self._ends.append(len(self._items))
        self._call = calls[0]
        self._seconds = [0.0] * len(chunks)  # Compute that has not been reported.
        self._ended = 0  # Chunks that have been reported to their end.
        self._at = skip  # Items that have their outcome.
        self._is_split = bool(runs)
        self._calls: deque[int] = deque()  # The numbers of items of the next calls.
        most = function.batching.size
        for run in runs or [len(self._items) - skip]:
            whole, rest = divmod(run, most)
            self._calls += [most] * whole + [rest] * (rest > 0)

    def compute(self) -> None:
        """Call the function for all items; the last report of each chunk carries ``final``.

        A batch ends early as ``compute`` does, but only that of one chunk has a budget.
        """
        progress, aftermath, clock = self._progress, self._aftermath, time.monotonic
        has_budget = len(self._chunks) == 1 and not self._is_split and self._chunks[0].budget
        budget = Budget(self._chunks[0].budget, self._chunks[0].each) if has_budget else NO_LIMIT
        report_seconds = self._limits.report_seconds
        if report_seconds:
            report_seconds = max(report_seconds, self._chunks[0].budget)
        now = clock()
        report_at = now + report_seconds
        base = due = now + budget.until(self._calls[0] if self._calls else 1)
        begun = halved = 0
        is_first = True
        if has_budget:
            progress.expect(base, budget.each)
        while self._calls:
            size = self._calls.popleft()
            is_halved = self._at < halved
            # The agent takes the items before a call for done if it is a part of a batch.
            if self._is_split or is_halved or now > report_at or self._is_full:
                self._flush()
                report_at = now + report_seconds
            if begun != (begun := self._number(self._at)):
                progress.begin(self._first + begun)
            chunk = self._chunks[begun]
            at = self._at - (self._ends[begun] - chunk.count)
            # Written before ``stopping`` is read, as in ``compute``.
            progress.enter_call(chunk.start + at, size, time.monotonic_ns() if self._timed else 0)
            # What is halved has no outcome yet: given back, it would raise again elsewhere.
            if progress.stopping or (now >= due and not is_first and not is_halved):
                break
            is_first, due = False, base + at * budget.each
            outcomes = self._outcomes(size)
            progress.leave()
            last, now = now, clock()
            if aftermath.due and aftermath.settle(now - last):
                base, due = base + now - last, due + now - last
                if has_budget:
                    progress.expect(base, budget.each)
            if outcomes is None:
                halved = max(halved, self._at + size)
                self._calls.extendleft((size - size // 2, size // 2))
                self._seconds[begun] += now - last
            else:
                self._take(outcomes, (now - last) / size)
        progress.leave()
        self._end()

    @property
    def _is_full(self) -> bool:
        return any(part.full for part in self._parts[self._ended :])

    def _number(self, position: int) -> int:
        """Return which chunk has the item at a position."""
        number = self._ended
        while self._ends[number] <= position:
            number += 1
        return number

    def _outcomes(self, size: int) -> list[Any] | None:
        """Call the function for the next items; return None if it raises for more than one."""
        items = self._items[self._at : self._at + size]
        if self._timed:
            items = list(map(loaded, items))
        fit = [item for item in items if type(item) is not Undecodable]
        count = len(fit)  # The function may change its list.
        values: Any = []
        if count:
            try:
                values = self._call(fit)
            except BaseException as error:
                self._aftermath.failed(error, refused=count > 1)
                if count > 1:
                    return None
                values = [_Failed(error)]
            else:
                values, shape = _rows(values, plain=self._is_typed)
                if (wrong := self._wrong(values, count, shape)) is not None:
                    for _ in range(count):
                        self._aftermath.failed(wrong, refused=False)
                    values = [_Failed(wrong)] * count
        left = iter(values)
        outcomes = [item if type(item) is Undecodable else next(left) for item in items]
        return self._early(outcomes) if self._timed else outcomes

    def _early(self, outcomes: list[Any]) -> list[Any]:
        """Encode the values of a call, on its time, where that may run code of users."""
        early = []
        for position, outcome in enumerate(outcomes, self._at):
            part = self._parts[self._number(position)]
            if isinstance(part, TimedPart) and type(outcome) not in (Undecodable, _Failed):
                outcome = part.early(outcome)
            early.append(outcome)
        return early

    def _wrong(self, values: Any, count: int, shape: str) -> Exception | None:
        """Return what is wrong with what the function returned for ``count`` items.

        shape: of the array, if it was one.
        """
        which = f"all {count} items of the call fail, as no value can be matched to its item"
        if not isinstance(values, list):
            return TypeError(
                f"{self._name} returned {_a(values)} for {count} items: a batch function returns "
                f"a list or a NumPy array with one value for each item{_advice(values)}; {which}"
            )
        if len(values) != count:
            return ValueError(
                f"{self._name} returned {len(values)} values{shape} for {count} items: a batch "
                f"function returns one value for each item, in their order; {which}"
            )
        return None

    def _take(self, outcomes: list[Any], seconds: float) -> None:
        """Note the outcomes of a call. seconds: its compute for one item."""
        number = self._number(self._at)
        for outcome in outcomes:
            while self._ends[number] <= self._at:
                number += 1
            chunk, part = self._chunks[number], self._parts[number]
            self._at += 1
            self._seconds[number] += seconds
            if type(outcome) is Undecodable:
                try:
                    part.refuse(outcome)
                except DecodingError as error:
                    part.fail(error)
            elif type(outcome) is _Failed:
                part.fail(outcome.error)
            else:
                part.values.append(outcome if chunk.values else None)

    def _flush(self) -> None:
        """Report all outcomes so far, and the end of the chunks that have all of theirs."""
        for number in range(self._ended, len(self._chunks)):
            chunk, part = self._chunks[number], self._parts[number]
            is_whole = self._ends[number] <= self._at
            if is_whole:
                self._ended += 1
            elif not part.values:
                return
            final = Final(chunk.start + chunk.count) if is_whole else None
            seconds, self._seconds[number] = self._seconds[number], 0.0
            part.flush(seconds, final)

    def _end(self) -> None:
        """Report all outcomes, and the end of all chunks: where a chunk ends early, its rest is
        not begun.
        """
        self._flush()
        for number in range(self._ended, len(self._chunks)):
            part = self._parts[number]
            part.flush(self._seconds[number], Final(part.start))
        self._ended = len(self._chunks)


def _rows(values: Any, *, plain: bool) -> tuple[Any, str]:
    """Return the rows of a NumPy array as a list, and its shape in words; or else what came.

    Args:
        plain: Whether rows are wanted as lists of Python's numbers, as their annotation says.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(values) is not numpy.ndarray or not values.ndim:
        return values, ""  # What is not one value for each item is refused.
    shape = f" (an array of shape {values.shape})"
    if values.ndim == 1:
        return list(values), shape
    if plain and values.dtype.kind in "biufSU":
        return values.tolist(), shape
    return list(values.copy()), shape  # The function may use its array again.


def _advice(values: object) -> str:
    """Return how to make a list of what a function returned."""
    if isinstance(values, tuple):  # Perhaps it returned two results, for two items.
        return ": return list(…) of it, or list(zip(*…)) if each item has several results"
    if type(values).__name__ == "ndarray":
        return ", and this one is of shape ()"
    if hasattr(values, "__array__"):
        return ": return numpy.asarray(…) of it"
    return ": return list(…) of it" if hasattr(values, "__iter__") else ""


def _a(value: object) -> str:
    name = type(value).__name__
    if value is None:
        return "None"
    return f"an {name}" if name[0] in "aeiouAEIOU" or name == "ndarray" else f"a {name}"
