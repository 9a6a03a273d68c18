"""Failed items of a job run again, although the process that runs them is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

import flaky_functions
from flaky_functions import calls
from jetmap import ItemError
from real_jobs import carrier, until_over
from servers import Site
from waiting import wait_until

pytestmark = pytest.mark.anyio

ITEMS = [n * 10 + (n % 2) * 5 for n in range(24)]  # Every other one fails until its fifth call.
AGAIN = ITEMS[1::2]


@pytest.mark.slow
async def test_a_retry_survives_the_death_of_its_owner(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster, flaky_functions.__file__)
    job = await cluster.submit("flaky.counted", ITEMS, kwargs={"log": str(tmp_path)})
    first = await until_over(cluster, job.id)
    assert (first.state, first.done, first.failed) == ("failed", 24, 12)
    before = await job.results(return_exceptions=True)
    assert [error.index for error in await job.failures()] == list(range(1, 24, 2))
    for item in AGAIN:
        (tmp_path / str(item)).write_text("call\n" * 5)
    owner = await carrier(place, ["", [job.id], None])
    await wait_until(
        lambda: any(calls(tmp_path, item) > 5 for item in AGAIN), "the second run has begun"
    )
    await owner.kill()
    second = await until_over(cluster, job.id)
    assert (second.run, second.state, second.done, second.failed) == (2, "succeeded", 24, 0)
    assert await job.results() == ITEMS
    once = [item for item in ITEMS if item not in AGAIN]
    assert {calls(tmp_path, item) for item in once} == {1}, "they keep their outcomes"
    again = await job.results(return_exceptions=True, run=1)
    assert [str(value) for value in again] == [str(value) for value in before]
    assert sum(isinstance(value, ItemError) for value in again) == 12
    events = [outcome.index async for outcome in job.stream()]
    assert sorted(events) == list(range(24))
    await job.delete()
    assert not await cluster.jobs.store.jobs_in("INPUT")
