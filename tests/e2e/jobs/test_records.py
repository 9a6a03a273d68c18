"""Jobs whose records hold too large numbers, or are of a later version, with a real server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from httpx import ASGITransport, AsyncClient

from jetmap import Cluster, JobUnreadable, UnknownJob, bounds
from jetmap.settings import Settings
from jetmap.wire import subjects
from jetmap_api import create_app
from over_http import check_problem
from real_jobs import until_over
from servers import AgentProcess, Site
from waiting import wait_for

pytestmark = pytest.mark.anyio


async def write(cluster: Cluster, id: str, **facts: Any) -> None:
    """Store a job's record as another version of jetmap may have done."""
    record = {"id": id, "function": "empty", "format": "json", "reserved": 7, "created": 1e9}
    data = msgspec.json.encode(record | facts)
    await cluster.jobs.store.append(subjects.job_state("default", id), data)


async def test_a_job_of_the_longest_time_ends_and_stays(
    home_cluster: Cluster, agent: AgentProcess
) -> None:
    jobs = home_cluster.jobs
    begun = await jobs.begin("empty", format="json", ttl=bounds.TTL.most)
    await begun.put([b"1"])
    await begun.commit()
    record = await until_over(home_cluster, begun.id, 20)
    assert (record.state, record.ttl) == ("succeeded", bounds.CENTURY)
    assert (await jobs.get(begun.id)).state == "succeeded", "it has not expired"
    await jobs.delete(begun.id)
    # One of before, of a time that is no longer let in.
    await write(home_cluster, "old", state="queued", total=0, ttl=1e300)
    await until_over(home_cluster, "old", 20)
    await jobs.delete("old")


async def test_a_record_that_is_not_understood_is_listed_and_deleted(
    home: Site, home_cluster: Cluster, agent: AgentProcess
) -> None:
    await write(home_cluster, "later", version=2, state="paused", priority=5)
    other = await home.cluster()  # Which reads what was there before it.
    for one in (home_cluster, other):

        async def listed(one: Cluster = one) -> bool:
            found, _ = await one.jobs.list(states=["unreadable"])
            return "later" in [record.id for record in found]

        await wait_for(listed, "it is listed")
        status = await one.job("later").status()
        assert (status.state, status.function) == ("unreadable", "empty")
        assert status.reason and status.is_over
        for ask in (one.job("later").cancel, one.job("later").results):
            with pytest.raises(JobUnreadable, match="delete the job"):
                await ask()
    app = create_app(other, Settings.load())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.get("/jobs/later")).json()["state"] == "unreadable"
        for method, path in (("POST", "cancel"), ("GET", "results"), ("GET", "events")):
            answer = await client.request(method, f"/jobs/later/{path}")
            check_problem(answer, 409, "job-unreadable")
        assert (await client.delete("/jobs/later")).status_code == 204
        check_problem(await client.get("/jobs/later"), 404, "unknown-job")
    for one in (home_cluster, other):
        with pytest.raises(UnknownJob):
            await one.job("later").status()
