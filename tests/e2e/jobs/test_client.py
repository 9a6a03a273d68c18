"""Jobs as Python callers hold them, with a broker."""

from __future__ import annotations

import asyncio

import pytest

import functions
from fake_jobs import read
from jetmap import (
    Cluster,
    UnknownFunction,
    UnknownJob,
)
from servers import AgentProcess, Site

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
