"""A map without processes or a server, for unit tests and for work that one core can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Self

import msgspec

from jetmap.dispatch.costs import Cost, Cutting
from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.sources import Source
from jetmap.errors import MapTimeout, WorkerStartFailed
from jetmap.functions.causes import HeldCause
from jetmap.functions.function import Function
from jetmap.wire import arrays
from jetmap.wire.messages import Chunk, Format, Report
from jetmap.wire.subjects import new_id
from jetmap.worker.aftermath import Aftermath
from jetmap.worker.batches import BatchComputation
from jetmap.worker.compute import AGAIN, Limits, compute
from jetmap.worker.progress import STOP
from jetmap.worker.state import LoadFailed, WorkerState


class _Progress:
    """Progress without shared memory."""

    exact: Callable[[], int] | None = None

    def __init__(self) -> None:
        self.words = [0, 0, 0]

    def expect(self, at: float, each: float) -> None: ...

    @property
    def stopping(self) -> bool:
        return bool(self.words[STOP])

    def begin(self, number: int) -> bool:
        return True

    def enter_call(self, item: int, items: int, started_ns: int = 0) -> None: ...
    def leave(self) -> None: ...


class _Raised(Aftermath):
    """The exceptions that a function has raised, in order."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def failed(self, error: BaseException, *, refused: bool) -> None:
        if not refused:
            self.errors.append(error)


class InlineMap:
    """A ``RunningMap`` in this process; leaving it stops before the next item.

    The function runs in a thread, so the event loop goes on. Nothing interrupts an item, and a
    crash is a crash of this process.
    """

    def __init__(
        self,
        function: Function,
        source: Source,
        *,
        format: Format,
        kwargs: bytes,
        timeout: float | None,
        limits: Limits,
        values: bool = True,
        state: WorkerState | None = None,
    ) -> None:
        self.id = new_id()
        self.done = 0
        self.ended = False
        self._stopped = False
        self._function = function
        self._source = source
        self._format: Format = format
        self._kwargs = kwargs
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._limits = limits
        self._values = values
        self._state = state or WorkerState()
        self._progress = _Progress()
        self._batches: list[Batch] = []
        self._cost = Cost()
        self._cutting = Cutting()
        self._taken = 0
        self._woken = asyncio.Event()
        source.wake = self._woken.set

    @property
    def total(self) -> int | None:
        return self._source.total

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while not self._batches:
            if self.ended or self._stopped:
                raise StopAsyncIteration
            await self._more()
        return self._batches.pop(0)

    async def collect(
        self, *, stop_at_error: bool, on_batch: Callable[[Batch], object] | None = None
    ) -> list[Batch]:
        """Return all batches in order, or those up to the first error with ``stop_at_error``."""
        batches = []
        async for batch in self:
            batches.append(batch)
            if on_batch is not None:
                on_batch(batch)
            if batch.errors and stop_at_error:
                break
        return batches

    def stop(self, before: int = 0) -> None:
        """Take no more items; the iteration ends after the outcomes that are there."""
        self._stopped = True

    async def aclose(self) -> None:
        """Stop before the next item, and drop the outcomes that were not read."""
        self.ended = True
        self._batches.clear()
        self._progress.words[STOP] = 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _more(self) -> None:
        """Compute the next items, or find out that there are none."""
        source = self._source
        try:
            async with asyncio.timeout(self._left()):
                if not source.has_items and source.total is None and source.error is None:
                    self._woken.clear()
                    await self._woken.wait()
                    return
                batch = self._function.batching.size if self._function.batching is not None else 1
                count = self._cutting.count(self._cost, source.remaining, 1, batch)
                piece = source.take(count, self._cutting.max_bytes)
                if piece is None:
                    self.ended = True
                    if source.error is not None:
                        raise source.error
                    return
                if piece.error is not None:
                    null = b"[null]" if self._format == "json" else b"\x91\xc0"
                    self._batches.append(Batch(self._taken, 1, null, [piece.error]))
                else:
                    await self._compute(piece.count, piece.encoded)
                self._taken += piece.count
        except TimeoutError as error:
            if isinstance(error, MapTimeout) or self._left() is None:
                raise
            await self.aclose()
            total = self.total if self.total is not None else "an unknown number of"
            raise MapTimeout(
                f"the map did not end within its timeout of {self._timeout:g} s: "
                f"{self.done} of {total} items were done"
            ) from None

    async def _compute(self, count: int, items: bytes) -> None:
        """Compute items, and those of them that are tried once more when their time has come."""
        reports = await self._call(self._taken, count, items, tries=0)
        if any(report.errors and not report.count for report in reports):
            reports = await self._repeat(reports, arrays.split(items, self._format))
        for report in reports:
            self.done += report.count
            self._cost.learn(report.count, report.seconds, len(report.values))
            if report.count:
                self._batches.append(
                    Batch(report.start, report.count, report.values, report.errors, report.tries)
                )

    async def _repeat(self, reports: list[Report], elements: list[msgspec.Raw]) -> list[Report]:
        """Return the reports of outcomes, in input order, once no item is tried any more."""
        found: list[Report] = []
        waiting: list[tuple[float, int, int]] = []  # A heap: until when; the item; its tries.
        while True:
            for report in reports:
                if report.count:
                    found.append(report)
                    continue
                for error in report.errors:
                    detail = error.detail or {}
                    at = time.monotonic() + detail["wait"]
                    heappush(waiting, (at, error.index, detail["tries"]))
            if not waiting or self._progress.words[STOP]:
                return sorted(found, key=lambda report: report.start)
            at, index, tries = heappop(waiting)
            await asyncio.sleep(at - time.monotonic())
            item = arrays.join([bytes(elements[index - self._taken])], self._format)
            reports = await self._call(index, 1, item, tries=tries)

    async def _call(self, start: int, count: int, items: bytes, *, tries: int) -> list[Report]:
        """Compute a chunk in a thread; errors hold the exceptions themselves."""
        chunk = Chunk(
            map=self.id,
            number=1,
            attempt=1,
            function=self._function.name,
            format=self._format,
            start=start,
            count=count,
            inbox="",
            timeout=None,
            budget=0.0,
            items=items,
            kwargs=self._kwargs,
            tries=tries,
            values=self._values,
        )
        reports: list[Report] = []
        raised = _Raised()
        await asyncio.to_thread(self._compute_chunk, chunk, reports.append, raised)
        called = [
            record
            for report in reports
            for record in report.errors
            if record.kind in ("raised", AGAIN)
        ]
        called.sort(key=lambda record: record.index)
        for record, error in zip(called, raised.errors, strict=True):
            record.cause = HeldCause([], error=error)
        return reports

    def _compute_chunk(self, chunk: Chunk, emit: Callable[[Report], None], raised: _Raised) -> None:
        """Compute a chunk in this thread. Raises WorkerStartFailed if a loader fails."""
        function = self._function
        try:
            state = self._state.values(function) if function.per_worker else None
        except LoadFailed as error:
            raise WorkerStartFailed(str(error)) from error.__cause__
        if function.batching is None:
            compute(chunk, function, self._progress, emit, self._limits, raised, state)
        else:
            more = [emit], self._limits, raised, state
            BatchComputation([chunk], function, self._progress, *more).compute()

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
