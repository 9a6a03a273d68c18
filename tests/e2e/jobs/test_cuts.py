"""A process of jobs whose line to the broker is cut, while others go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from gateways import gateway, submitted, whole
from jetmap import Cluster
from jetmap.jobs.record import Record
from proxy import proxy
from real_jobs import submit, until_over
from servers import Site, starts
from waiting import PATIENCE, wait_for, wait_until

pytestmark = pytest.mark.anyio


async def listed(cluster: Cluster) -> set[str]:
    found: list[Record] = []
    after: str | None = None
    while True:
        page, after = await cluster.jobs.list(limit=1000, after=after)
        found += page
        if after is None:
            return {record.id for record in found}


async def test_what_was_told_during_a_cut_is_read_afterwards(place: Site) -> None:
    whole = await place.cluster()
    await place.agent(whole)
    await until_over(whole, (await submit(whole, "empty", [1])).id)
    stored = 0
    going_on = True

    async def write() -> None:
        """Records as they come from many gateways."""
        nonlocal stored
        while going_on:
            stored += 1
            record = Record(
                id=f"job{stored}",
                function="empty",
                format="json",
                state="succeeded",
                created=time.time(),
                updated=time.time(),
                ttl=900,
            )
            await whole.jobs.store.write(record, 0, ttl=900)

    async with proxy(place.server.port) as line:
        cut_off = await Cluster.start(line.url)
        await cut_off.jobs.list()
        writing = asyncio.gather(write(), write())
        for _ in range(2):
            await line.cut()
            await wait_until(lambda: not cut_off.connected, "it is noticed")
            await wait_until(lambda n=stored: stored > n + 20, "more is stored meanwhile")
            await line.mend()
            await wait_until(lambda: cut_off.connected, "it is connected again")
            await wait_until(lambda n=stored: stored > n + 20, "and afterwards")
        going_on = False
        await writing
        expected = await listed(whole)
        assert len(expected) == stored + 1
        assert await listed(cut_off) == expected
        await cut_off.aclose()


@pytest.mark.slow
async def test_a_gateway_that_is_cut_off_from_its_job(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    await cluster.aclose()  # So that nobody else carries it.
    async with proxy(place.server.port) as line, httpx.AsyncClient(timeout=PATIENCE) as client:
        first, second = await gateway(place, line.url), await gateway(place)
        log = tmp_path / "log"
        job = await submitted(first, log)
        await wait_until(lambda: len(starts(log)) > 100, "the job runs")
        await line.cut()

        async def over() -> bool:
            state = (await client.get(second.url + job)).json()["state"]
            return state not in ("queued", "running")

        await wait_for(over, "the other one takes it over, and ends it")
        await whole(second, job)
        assert (await client.get(first.url + job)).status_code == 503
        await line.mend()

        async def back() -> bool:
            return (await client.get(first.url + job)).status_code == 200

        await wait_for(back, "the first one is there again")
        await whole(first, job)
        await whole(second, job)
