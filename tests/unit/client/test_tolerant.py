"""A map that ends when too many of its items fail."""

from __future__ import annotations

import pytest

from jetmap.client.inline import InlineMap
from jetmap.client.tolerant import TolerantMap
from jetmap.dispatch.sources import RawItems
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import TooManyFailed
from jetmap.functions.task import Function
from jetmap.worker.compute import Limits

pytestmark = pytest.mark.anyio


def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


def opened(count: int, tolerance: str, total: int | None = None) -> TolerantMap:
    source = RawItems([b"%d" % n for n in range(count)], "json")
    limits = Limits(value=1000, report=1 << 18, report_seconds=3600.0)
    run = InlineMap(Function(odd), source, format="json", kwargs=b"", timeout=None, limits=limits)
    return TolerantMap(run, Tolerance(tolerance), total)


async def test_what_is_tolerated_passes() -> None:
    run = opened(20, "10")
    batches = await run.collect()
    assert sum(len(batch.errors) for batch in batches) == 10
    assert (run.done, run.total, run.ended) == (20, 20, True)
    assert sum(batch.count for batch in await opened(20, "50%").collect()) == 20


async def test_one_more_ends_the_map() -> None:
    for tolerance in ("9", "49%"):
        run = opened(2000, tolerance if "%" not in tolerance else "2%")
        with pytest.raises(TooManyFailed):
            await run.collect()
        assert run.ended
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(run)


async def test_a_total_that_only_the_caller_knows() -> None:
    async with opened(20, "10%", total=100) as run:
        assert sum(batch.count for batch in await run.collect()) == 20
    with pytest.raises(TooManyFailed, match="of 20 items failed"):
        await opened(20, "10%").collect()
