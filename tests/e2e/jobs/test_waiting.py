"""A job that waits for workers says why, and makes an autoscaler start one and stop it again."""

from __future__ import annotations

import signal
from typing import Any, cast

import httpx
import pytest

from jetmap.jobs.record import Record
from jetmap.settings import Settings
from jetmap_api import create_app
from real_jobs import submit, until_over
from servers import FUNCTIONS, Site
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_from_zero_workers_through_broken_ones_and_back_to_zero(place: Site) -> None:
    cluster = await place.cluster()
    other = await place.cluster()
    transport = httpx.ASGITransport(create_app(cluster, Settings()))
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def scale() -> dict[str, Any]:
        found: dict[str, Any] = (await client.get("/scale")).json()
        return found

    async def wanted(cores: bool) -> dict[str, Any] | None:
        found = await scale()
        return found if bool(found["wanted_cores"]) == cores else None

    async def waits(job: str, reason: str) -> Record | None:
        record = await other.jobs.get(job)
        is_it = record.public_state == "waiting" and reason in str(record.reason)
        return record if is_it else None

    agent = await place.agent(cluster)
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent has left")
    await wait_until(lambda: not cluster.workers, "it has said so")
    assert await wanted(False), "nothing waits"
    job = await submit(cluster, "odd_only", [1, 3, 5])
    record = cast(Record, await wait_for(lambda: waits(job.id, "'odd_only'"), "it waits"))
    assert (record.waiting_for, record.started, record.seconds_left) == ("workers", None, None)
    await wait_until(lambda: cluster.stats.backlog_items == 3, "three items are backlog")
    assert cluster.stats.backlog_seconds > 0 and other.stats.backlog_items == 0
    found = await wait_for(lambda: wanted(True), "a core is wanted")
    assert found is not None and found["cores"] == 0 and found["backlog_seconds"] > 0

    broken = place.place / "broken_tasks.py"
    broken.write_text("import no_such_module\n")
    failing = place.start_agent(str(broken), "--reload")
    await wait_for(lambda: waits(job.id, "no_such_module"), "workers cannot start")
    failing.signal(signal.SIGTERM)

    scaled = await place.agent(cluster, FUNCTIONS)
    done = await until_over(cluster, job.id)
    assert (done.state, done.waiting_for, done.reason) == ("succeeded", None, None)
    await wait_until(lambda: cluster.stats.backlog_items == 0, "nothing waits")
    await wait_for(lambda: wanted(False), "no core is wanted any more")
    scaled.signal(signal.SIGTERM)
    await wait_until(scaled.has_exited, "it has left")
    await client.aclose()
