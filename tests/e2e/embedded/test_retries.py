"""``@task(retries=)``: a function that raises is called again, on a cluster and inline."""

from __future__ import annotations

from pathlib import Path

import pytest

import flaky_functions
from flaky_functions import Busy, calls, patient, thrice
from jetmap import Cluster, ItemRaised, MapTimeout
from servers import outcomes

pytestmark = pytest.mark.anyio

ITEMS = [0, 1, 12, 3, -5, 20, 22]  # Calls: 1, 2, 3, failing after 3, failing at once, 1, 3.
TRIES = [1, 2, 3, 3, 1, 1, 3]


@pytest.mark.parametrize("ordered", [False, True])
async def test_each_outcome_says_how_often(cluster: Cluster, tmp_path: Path, ordered: bool) -> None:
    kwargs = {"log": str(tmp_path)}
    found = await outcomes(cluster.stream(thrice, ITEMS, kwargs=kwargs, ordered=ordered))
    assert not ordered or [outcome.index for outcome in found] == list(range(len(ITEMS)))
    found.sort(key=lambda outcome: outcome.index)
    assert [outcome.tries for outcome in found] == TRIES
    assert [calls(tmp_path, item) for item in ITEMS] == TRIES
    assert [outcome.value for outcome in found if outcome.ok] == [0, 1, 12, 20, 22]
    raised, at_once = found[3].error, found[4].error
    assert isinstance(raised, ItemRaised) and raised.tries == 3
    assert type(raised.__cause__) is Busy and "(3 tries)" in str(raised)
    assert isinstance(at_once, ItemRaised) and at_once.tries == 1 and "tries" not in str(at_once)


async def test_a_map_gives_the_values_of_the_last_try(cluster: Cluster, tmp_path: Path) -> None:
    items = [*range(0, 3000, 10), 1, 2]
    kwargs = {"log": str(tmp_path)}
    assert await cluster.map(thrice, items, kwargs=kwargs) == items
    with pytest.raises(ItemRaised) as caught:  # The first in input order, though it fails last.
        await cluster.map(thrice, [100, 103, -1, 201], kwargs=kwargs)
    assert (caught.value.index, caught.value.tries) == (1, 3)


async def test_waiting_keeps_no_core_busy(shared: Cluster, tmp_path: Path) -> None:
    waiting = shared.stream(patient, [n * 10 + 1 for n in range(50)], kwargs={"log": str(tmp_path)})
    async with waiting:
        found = [await anext(waiting)]  # The wait is a share of 30 seconds: one is short.
        done = await shared.map(thrice, range(0, 1000, 10), kwargs={"log": str(tmp_path)})
        assert len(done) == 100 and found[0].tries == 2


async def test_the_timeout_of_a_map_counts_waits(cluster: Cluster, tmp_path: Path) -> None:
    for seconds in (1, 5, 60):  # A busy machine may not begin within the first.
        with pytest.raises(MapTimeout, match="0 of 3 items were done"):
            await cluster.map(patient, [9, 19, 29], kwargs={"log": str(tmp_path)}, timeout=seconds)
        if flaky_functions.calls(tmp_path, 9) >= 1:
            break
    else:
        pytest.fail("it was never called")
