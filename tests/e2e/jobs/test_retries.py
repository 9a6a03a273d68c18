"""Items of a job that wait for their next try survive the job's owner, with their tries."""

from __future__ import annotations

from pathlib import Path

import pytest

import flaky_functions
from flaky_functions import calls, handed
from jetmap.jobs.outcomes import StoredOutcomes
from real_jobs import until_over
from servers import Site, outcomes
from waiting import wait_for

pytestmark = pytest.mark.anyio

ITEMS = [n * 10 + n % 2 for n in range(24)]  # Every other one raises at its first call.


@pytest.mark.slow
async def test_waiting_items_survive_their_owner(place: Site, tmp_path: Path) -> None:
    """And the last try of an item fails it."""
    cluster = await place.cluster()
    await place.agent(cluster, flaky_functions.__file__)
    (tmp_path / "log").mkdir()
    thrice = await cluster.submit("flaky.thrice", [1, 5, -2], kwargs={"log": str(tmp_path)})
    owner = await place.cluster()
    submitted = await owner.submit(handed, ITEMS, kwargs={"log": str(tmp_path / "log")})
    stored = StoredOutcomes(cluster.jobs.store, submitted.id, "msgpack")

    async def all_tried() -> bool:
        return set((await stored.refresh()).tries) == set(range(1, 24, 2))

    await wait_for(all_tried, "the first tries are stored")
    await owner.aclose()
    record = await until_over(cluster, submitted.id)
    assert (record.state, record.done, record.failed) == ("succeeded", len(ITEMS), 0)
    found = await outcomes(cluster.job(submitted.id, handed).stream(ordered=True))
    assert [outcome.value for outcome in found] == ITEMS
    # An item whose outcome was not stored yet may have run again, with as many tries.
    assert [outcome.tries for outcome in found] == [1 + n % 2 for n in range(24)]
    assert record.epoch == 2
    found = await outcomes(thrice.stream(ordered=True))
    assert [(outcome.ok, outcome.tries) for outcome in found] == [(True, 2), (False, 3), (False, 1)]
    status = await thrice.status()
    assert (status.state, status.done, status.failed) == ("failed", 3, 2)
    assert calls(tmp_path, 5) == 3
