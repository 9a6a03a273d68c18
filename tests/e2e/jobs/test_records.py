"""Jobs whose records hold too large numbers, or are of a later version, with a real server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jetmap import Cluster, bounds
from jetmap.wire import subjects
from real_jobs import until_over
from servers import AgentProcess

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
    record = await until_over(home_cluster, begun.id)
    assert (record.state, record.ttl) == ("succeeded", bounds.CENTURY)
    assert (await jobs.get(begun.id)).state == "succeeded", "it has not expired"
    await jobs.delete(begun.id)
    # One of before, of a time that is no longer let in.
    await write(home_cluster, "old", state="queued", total=0, ttl=1e300)
    await until_over(home_cluster, "old")
    await jobs.delete("old")
