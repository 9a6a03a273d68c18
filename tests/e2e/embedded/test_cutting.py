"""A list is cut for all cores, whatever its items were thought to take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import functions
from jetmap import Cluster, ItemError
from jetmap.dispatch.sources import RawItems
from servers import FUNCTIONS, executions
from waiting import wait_until

pytestmark = pytest.mark.anyio

# A process that has to wait for its turn for less than a second makes no difference.
CHEAP, DEAR = 0.0, 0.1


@pytest.fixture(scope="module")
async def cluster(mark: str) -> AsyncIterator[Cluster]:
    async with Cluster(tasks=FUNCTIONS, cores=2) as cluster:
        await wait_until(
            lambda: sum(found.ready for found in cluster.workers) == 2, "the workers are ready"
        )
        yield cluster


def beside_others(runs: Sequence[tuple[int, int, int]]) -> int:
    """Count the items that ran while another process was in one."""
    return sum(
        any(pid != other and began < end2 and began2 < end for other, began2, end2 in runs)
        for pid, began, end in runs
    )


@pytest.mark.parametrize(
    ("cheap", "items", "kwargs"),
    [
        ([CHEAP] * 1000, [DEAR] * 40, {}),
        ([DEAR] * 1000, [DEAR] * 40, {"times": 1.0}),
        ([], [CHEAP] * 3000 + [DEAR] * 40, {}),
    ],
    ids=["by size", "by a keyword parameter", "within a map"],
)
async def test_dear_items_after_cheap_ones_run_on_all_cores(
    cluster: Cluster, cheap: list[float], items: list[float], kwargs: dict[str, Any]
) -> None:
    if cheap:
        await cluster.map(functions.observed, cheap, kwargs=kwargs and {"times": 0.0})
    runs = await cluster.map(functions.observed, items, kwargs=kwargs)
    dear = [run for run, seconds in zip(runs, items, strict=True) if seconds]
    assert len({pid for pid, _, _ in dear}) == 2
    # Were they in one chunk, none would. Each goes out alone, and waits on a busy machine.
    assert beside_others(dear) >= len(dear) / 4


async def test_a_stream_begins_with_a_short_chunk(cluster: Cluster) -> None:
    await cluster.map(functions.nap, [0.001] * 400)
    items = msgspec.msgpack.encode(0.001)
    run = await cluster.open(
        "nap", RawItems([items] * 400, "msgpack"), format="msgpack", early=True
    )
    async with run:
        batches = [batch async for batch in run]
    first = next(batch for batch in batches if batch.start == 0)
    # Others begin with some 47; where naps take long, with fewer.
    assert first.count <= 5


async def test_items_behind_a_long_one_run_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    """The long item ends only when the others have begun, which were in one chunk with it."""
    log = str(tmp_path / "log")
    # They are thought to be cheap.
    kwargs = {"log": str(tmp_path / "before"), "count": 0}
    await cluster.map(functions.wait_for_all, range(1, 1000), kwargs=kwargs)
    values = await cluster.map(functions.wait_for_all, range(30), kwargs={"log": log, "count": 30})
    assert values == [True] * 30
    assert executions(Path(log)) == dict.fromkeys(range(30), 1)


async def test_the_last_item_of_a_list_does_not_begin_last(cluster: Cluster) -> None:
    for _ in range(2):  # The first list teaches what an item takes.
        runs = await cluster.map(functions.observed, [DEAR] * 40)
    began = [began for _, began, _ in runs]
    assert began[-1] < began[20]


async def test_the_first_error_is_raised_whichever_item_is_computed_first(
    cluster: Cluster,
) -> None:
    items = [n if n in (40, 50, 100) else 2 * n + 1 for n in range(101)]
    with pytest.raises(ItemError, match="40 is even"):
        await cluster.map(functions.odd_only, items)
    with pytest.raises(ItemError, match="100 is even"):
        await cluster.map(functions.odd_only, [1] * 100 + [100])
    values = await cluster.map(functions.odd_only, items, return_exceptions=True)
    assert [n for n, value in enumerate(values) if isinstance(value, ItemError)] == [40, 50, 100]


async def test_what_comes_beside_a_long_list_ends_its_chunks_early_and_harms_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Small maps end the list's long chunks again and again; each item is computed once."""
    items = [(n, 0.002) for n in range(1500)]
    await cluster.map(functions.logged, items[:400], kwargs={"log": str(tmp_path / "before")})
    log = tmp_path / "log"
    running = asyncio.create_task(cluster.map(functions.logged, items, kwargs={"log": str(log)}))
    small = 0
    while not running.done():
        assert await cluster.map(functions.is_prime, [small]) == [functions.is_prime(small)]
        small += 1
        await asyncio.sleep(0.05)
    assert await running == [n for n, _ in items]
    assert executions(log) == dict.fromkeys(range(1500), 1)
    assert small > 1
