"""Many readers of a job on a real broker: what they ask of the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jetmap.jobs.store import Store
from real_jobs import kill_server, start_server, submit, until_over
from servers import Site
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_readers_of_a_real_job(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job goes on across a restart of the broker; requests are counted."""
    cluster = await place.cluster()
    await place.agent(cluster)
    gate = tmp_path / "gate"
    items = [("", 1)] * 100 + [(str(gate), 1)] * 100
    job = await submit(cluster, "gate", items)
    asked = 0

    def counting(name: str) -> None:
        real = getattr(Store, name)

        async def ask(self: Store, *given: Any, **named: Any) -> Any:
            nonlocal asked
            asked += 1
            return await real(self, *given, **named)

        monkeypatch.setattr(Store, name, ask)

    for name in ("fetch", "size", "last_outcome", "listen"):
        counting(name)

    async def count() -> int:
        return len([outcome.index async for outcome in cluster.job(job.id).stream()])

    crowd = [asyncio.create_task(count()) for _ in range(300)]
    await wait_until(lambda: cluster.jobs._readers.waiting == 300, "they wait")
    await kill_server(place)
    await start_server(place)
    gate.touch()
    record = await until_over(cluster, job.id)
    assert record.state == "succeeded"
    assert await asyncio.gather(*crowd) == [200] * 300
    assert len(cluster.jobs._readers) == 0
    # Apart from the record, which each reads once, and this test again and again.
    assert asked < 300, asked
