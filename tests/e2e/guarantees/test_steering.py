"""Functions and a pool that are paused or limited, with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import functions
from jetmap import Cluster, MapTimeout
from jetmap.nats.server import NatsServer
from jetmap.wire.controls import PoolControl
from servers import Site, site
from waiting import wait_until

pytestmark = pytest.mark.anyio

FUNCTION = functions.observed.__name__


@dataclass
class Two:
    """Two callers of one pool whose broker keeps its store."""

    place: Site
    store: Path
    first: Cluster
    second: Cluster


@pytest.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    path = tmp_path_factory.mktemp("steering")
    async with site(path, store=path / "store") as place:
        first, second = await place.cluster(), await place.cluster()
        await place.agent(first)
        yield Two(place, path / "store", first, second)


def at_once(spans: list[tuple[int, int, int]]) -> int:
    """Return how many of these items were computed at the same time, at most."""
    return max(sum(b <= began < e for _, b, e in spans) for _, began, _ in spans)


async def test_a_pause_outlives_the_broker_and_ends_with_every_outcome(two: Two) -> None:
    first, second = two.first, two.second
    running = asyncio.ensure_future(first.map(functions.observed, [0.02] * 200))
    await wait_until(lambda: first.stats.items_done > 10, "the map runs")
    await second.steer(FUNCTION, paused=True)
    with pytest.raises(MapTimeout, match=r"0 of 1 items were done; function 'observed' is paused"):
        await second.map(functions.observed, [0.0], timeout=1.0)
    await wait_until(lambda: first.stats.in_flight == 0, "what was out has ended")
    done = first.stats.items_done

    port = two.place.server.port
    await two.place.server.stop()
    two.place.server = NatsServer(port=port, store=two.store)
    await two.place.server.start()
    await wait_until(lambda: first.connected and second.connected, "the broker is back")
    third = await two.place.cluster()
    await wait_until(lambda: third.control.of(FUNCTION).paused, "it has read the controls")
    with pytest.raises(MapTimeout, match="is paused"):
        await third.map(functions.observed, [0.0], timeout=1.0)
    assert (first.stats.items_done, running.done()) == (done, False)

    await third.steer(None, paused=True)
    await third.steer(FUNCTION, paused=False)
    with pytest.raises(MapTimeout, match="the pool is paused"):
        await second.map(functions.observed, [0.0], timeout=1.0)
    await second.steer(None, paused=False)
    assert len(await running) == 200
    await wait_until(lambda: third.control == PoolControl(), "it knows that all may run")


@pytest.mark.slow
async def test_a_limit_holds_over_two_callers(two: Two) -> None:
    await two.first.steer(FUNCTION, max_parallel=1)
    await wait_until(lambda: two.second.control == two.first.control, "both know of it")
    maps = [cluster.map(functions.observed, [0.02] * 60) for cluster in (two.first, two.second)]
    results = await asyncio.gather(*maps)
    assert [len(spans) for spans in results] == [60, 60]
    assert at_once([span for spans in results for span in spans]) == 1
    await two.second.steer(FUNCTION, max_parallel=None)
    await wait_until(lambda: two.first.control == two.second.control, "both know that it is over")
    spans = await two.first.map(functions.observed, [0.05] * 40)
    assert at_once(spans) == 2


async def test_a_limit_in_code_holds_over_two_callers(two: Two) -> None:
    maps = [cluster.map(functions.alone, [0.02] * 20) for cluster in (two.first, two.second)]
    results = await asyncio.gather(*maps)
    assert at_once([span for spans in results for span in spans]) == 1
