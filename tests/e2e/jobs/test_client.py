"""Jobs as Python callers hold them, with a broker."""

from __future__ import annotations

import asyncio

import pytest

import functions
from fake_jobs import read
from jetmap import (
    Cluster,
    ItemRaised,
    JobEnded,
    UnknownFunction,
    UnknownJob,
)
from servers import AgentProcess, Site
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_jobs_for_real(home: Site, home_cluster: Cluster, agent: AgentProcess) -> None:
    cluster = home_cluster
    job = await cluster.submit(functions.scale, range(3000), kwargs={"by": 2})
    assert await job == [2 * i for i in range(3000)]
    other = await home.cluster()
    again = other.job(job.id)
    assert (await again.status()).state == "succeeded"
    stream = again.stream()
    first = await read(stream, 1500)
    rest = await read(job.stream(after=stream.position))
    assert sorted(first + rest) == [(i, 2 * i) for i in range(3000)]
    assert await read(again.stream("@2998", ordered=True)) == [(2998, 5996), (2999, 5998)]

    def count() -> list[int]:
        return other.sync.submit(functions.scale, range(10), kwargs={"by": 2}).results()

    assert await asyncio.to_thread(count) == list(range(0, 20, 2))
    one = await other.submit(functions.empty, range(5), key="k")
    assert (await cluster.submit(functions.empty, range(5), key="k")).id == one.id
    with pytest.raises(UnknownFunction):
        await cluster.submit("nobody_has_it", [1])
    await job.delete()
    with pytest.raises(UnknownJob):
        await again.status()


async def test_jobs_tolerate_some_failures(
    home: Site, home_cluster: Cluster, agent: AgentProcess
) -> None:
    cluster = home_cluster
    tolerant = await cluster.submit(functions.odd_only, range(100), max_failed="50%")
    values = await tolerant
    assert [isinstance(value, ItemRaised) for value in values] == [True, False] * 50
    status = await tolerant.status()
    assert (status.state, status.failed, status.max_failed) == ("succeeded", 50, "50%")
    strict = await cluster.submit(functions.odd_only, iter(range(5000)), max_failed=20)
    status = await strict.wait(PATIENCE)
    assert status.state == "failed" and status.failed > 20 and status.done < 5000
    assert status.reason is not None and "max_failed is 20" in status.reason
    assert "is even\n" in status.reason
    with pytest.raises(JobEnded, match="max_failed is 20"):
        await strict
    at_the_end = await cluster.submit(functions.odd_only, [1, 3, 2], max_failed=0)
    with pytest.raises(JobEnded, match="1 of 3 items failed"):
        await at_the_end
    for wrong in ("x", -1):
        with pytest.raises(ValueError, match="max_failed must be"):
            await cluster.submit(functions.odd_only, [1], max_failed=wrong)


async def test_a_job_without_values_stores_none(
    home: Site, home_cluster: Cluster, agent: AgentProcess
) -> None:
    job = await home_cluster.submit(functions.odd_only, range(1, 400, 2), values=False)
    assert await job == [None] * 200
    # A reader of another process does not know how it was submitted.
    other = await home.cluster()
    assert await other.job(job.id, functions.odd_only) == [None] * 200
    assert await read(other.job(job.id).stream("@198", ordered=True)) == [(198, None), (199, None)]
