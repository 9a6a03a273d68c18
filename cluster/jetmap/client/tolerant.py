"""A running map that ends when more items fail than its caller tolerates."""

from __future__ import annotations

from collections.abc import Callable

from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.tolerance import FailureCount, Tolerance

from .stream import RunningMap, WrappedMap


class TolerantMap(WrappedMap):
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
        super().__init__(run)
        total = run.total if total is None else total
        self._failures = FailureCount(tolerance, total, trusted=trusted)

    async def __anext__(self) -> Batch:
        batch = await self._run.__anext__()
        if batch.errors:
            try:
                self._failures.add(batch.errors, self._run.done)
            except BaseException:
                await self._run.aclose()
                raise
        return batch

    async def collect(
        self, *, stop_at_error: bool = False, on_batch: Callable[[Batch], object] | None = None
    ) -> list[Batch]:
        batches = []
        async for batch in self:
            batches.append(batch)
            if on_batch is not None:
                on_batch(batch)
        batches.sort(key=lambda batch: batch.start)
        return batches
