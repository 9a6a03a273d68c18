"""A running map that ends when more items fail than its caller tolerates."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.tolerance import FailureCount, Tolerance

from .stream import RunningMap


class TolerantMap:
    """Pass a map's batches on; raise TooManyFailed, and withdraw the rest, when too many failed.

    Args:
        run: The map.
        total: Number of its items, if the caller knows it and the map does not.
        trusted: Whether pickled exceptions may be loaded.
    """

    def __init__(
        self,
        run: RunningMap,
        tolerance: Tolerance,
        total: int | None = None,
        *,
        trusted: bool = False,
    ) -> None:
        self.id = run.id
        self._run = run
        total = run.total if total is None else total
        self._failures = FailureCount(tolerance, total, trusted=trusted)

    @property
    def ended(self) -> bool:
        return self._run.ended

    @property
    def total(self) -> int | None:
        return self._run.total

    @property
    def done(self) -> int:
        return self._run.done

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        batch = await self._run.__anext__()
        if batch.errors:
            try:
                self._failures.add(batch.errors, self._run.done)
            except BaseException:
                await self._run.aclose()
                raise
        return batch

    async def collect(self, *, stop_at_error: bool = False) -> list[Batch]:
        batches = [batch async for batch in self]
        batches.sort(key=lambda batch: batch.start)
        return batches

    def stop(self) -> None:
        self._run.stop()

    async def aclose(self) -> None:
        await self._run.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
