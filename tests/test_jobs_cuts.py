"""A process of jobs whose line to the broker is cut, while others go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetmap import Cluster
from jetmap.jobs.records import Record
from proxy import proxy
from support import Site, site
from test_jobs_faults import submit, until_over
from waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


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
        for _ in range(4):
            await line.cut()
            await wait_until(lambda: not cut_off.connected, "it is noticed")
            await asyncio.sleep(0.5)
            await line.mend()
            await wait_until(lambda: cut_off.connected, "it is connected again", 20)
            await asyncio.sleep(0.5)
        going_on = False
        await writing
        assert stored > 100
        expected = await listed(whole)
        assert len(expected) == stored + 1
        assert await listed(cut_off) == expected
        await cut_off.aclose()
