"""``@task(batch=)``: items of several maps share calls, and one bad item costs itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import batch_functions
from batch_functions import BAD, DEADLY, calls, gated, slow_to_die, tenfold
from jetmap import Cluster, ItemError, WorkerLost
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio

TASKS = batch_functions.__file__


@pytest.fixture(scope="module")
async def one(mark: str) -> AsyncIterator[Cluster]:
    """A cluster of one core."""
    async with Cluster(tasks=TASKS, cores=1) as cluster:
        yield cluster


async def maps(cluster: Cluster, items: list[int], log: Path) -> list[Any]:
    """Run a map for each item, at once; return what each gave."""
    runs = [
        cluster.map(tenfold, [item], kwargs={"log": str(log)}, return_exceptions=True)
        for item in items
    ]
    return [value for (value,) in await asyncio.gather(*runs)]


async def test_64_maps_of_two_callers_take_at_most_4_calls(one: Cluster, tmp_path: Path) -> None:
    async with Cluster(tasks=TASKS, cores=1) as other:
        found = await asyncio.gather(
            maps(one, list(range(32)), tmp_path / "log"),
            maps(other, list(range(32, 64)), tmp_path / "log"),
        )
    assert [value for values in found for value in values] == [10 * n for n in range(64)]
    made = [items for _, items in calls(tmp_path / "log")]
    assert len(made) <= 4 and sorted(n for items in made for n in items) == list(range(64))
    assert any(min(items) < 32 <= max(items) for items in made), "both callers' items met"


async def test_a_list_is_cut_into_whole_batches(one: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert await one.map(tenfold, range(200), kwargs={"log": str(log)}) == list(range(0, 2000, 10))
    assert sorted(len(items) for _, items in calls(log)) == [8, 64, 64, 64]


async def test_a_bad_item_costs_itself(one: Cluster, tmp_path: Path) -> None:
    found = await maps(one, [*range(7), BAD, *range(8, 16)], tmp_path / "log")
    error = found.pop(7)
    assert isinstance(error, ItemError) and isinstance(error.__cause__, ValueError)
    assert found == [10 * n for n in range(16) if n != 7]
    raised = [items for _, items in calls(tmp_path / "log") if BAD in items]
    assert raised[-1] == [BAD] and len(raised) <= 6, "the call is halved"


@pytest.mark.slow
async def test_an_item_that_kills_its_worker_costs_itself(one: Cluster, tmp_path: Path) -> None:
    """The function has one attempt, which the others must not lose."""
    found = await maps(one, [*range(3), DEADLY, *range(4, 8)], tmp_path / "log")
    assert isinstance(found.pop(3), WorkerLost)
    assert found == [10 * n for n in range(8) if n != 3]
    deadly = [(pid, items) for pid, items in calls(tmp_path / "log") if DEADLY in items]
    assert deadly[-1][1] == [DEADLY] and len(deadly) <= 5, "the batch is halved"
    assert len({pid for pid, _ in deadly}) == len(deadly)


@pytest.mark.slow
async def test_what_a_slow_call_sent_elsewhere_is_not_computed_again_when_its_worker_dies(
    tmp_path: Path,
) -> None:
    """The items behind the call have gone to another core, as their chunk's time was spent."""
    items = range(4000)
    async with Cluster(tasks=TASKS, cores=2) as cluster:
        for deadly in range(1500, 2000, 100):  # Some are the last of their chunk.
            log = tmp_path / str(deadly)
            kwargs = {"log": str(log), "deadly": deadly}
            assert await cluster.map(slow_to_die, items, kwargs=kwargs) == [10 * n for n in items]
            (call, *halves) = [call for _, call in calls(log) if deadly in call]
            # What came before the call in its chunk may be lost with the worker.
            runs = Counter(n for _, some in calls(log) for n in some if n > call[-1])
            assert halves and runs == Counter(items[call[-1] + 1 :])


async def test_a_caller_who_leaves_takes_no_one_with_him(one: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def run(item: int) -> asyncio.Task[list[int]]:
        return asyncio.create_task(one.map(gated, [item], kwargs={"log": str(log)}))

    running = {item: run(item) for item in (1, 2)}
    await wait_until(lambda: calls(log), "a batch runs")
    while sum(len(items) for _, items in calls(log)) < 2:  # They have not met.
        (tmp_path / "log.open").touch()
        await asyncio.gather(*running.values())
        log.unlink()
        (tmp_path / "log.open").unlink()
        running = {item: run(item) for item in (1, 2)}
        await wait_until(lambda: calls(log), "a batch runs")
    ((pid, _),) = calls(log)
    waiting = {item: run(item) for item in (3, 4)}
    leaving = [running.pop(1), waiting.pop(3)]
    for left in leaving:
        left.cancel()
    await asyncio.wait(leaving)
    await turns(20)
    await one._session.connection.round_trip()  # The agent learns of it before anything later.
    (tmp_path / "log.open").touch()
    assert await running[2] == [20] and await waiting[4] == [40]
    assert [items for _, items in calls(log)][1:] == [[4]], "what nobody wants is dropped"
    assert {pid for pid, _ in calls(log)} == {pid}, "the batch went on for the other"
