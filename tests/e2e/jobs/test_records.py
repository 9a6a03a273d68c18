"""Jobs whose records hold too large numbers, or are of a later version, with a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from httpx import ASGITransport, AsyncClient

from jetmap import Cluster, JobUnreadable, UnknownJob, bounds
from jetmap.settings import Settings
from jetmap.wire import subjects
from jetmap_api import create_app
from over_http import check_problem
from real_jobs import until_over, upload
from servers import Site, site
from waiting import wait_for

pytestmark = pytest.mark.anyio

VERSIONS = {
    "later": {"version": 2, "state": "paused", "priority": 5},
    "damaged": {"total": "many"},
    "immortal": {"ttl": None},  # What became of an infinite one.
}


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    path = tmp_path_factory.mktemp("records")
    async with site(path, store=path / "store") as there:
        yield there


@pytest.fixture(scope="module")
async def cluster(place: Site) -> Cluster:
    cluster = await place.cluster()
    await place.agent(cluster)
    await (await upload(cluster, [1])).abort()  # Then the streams are there.
    return cluster


async def write(cluster: Cluster, id: str, **facts: Any) -> None:
    """Store a job's record as another version of jetmap may have done."""
    record = {"id": id, "function": "empty", "format": "json", "reserved": 7, "created": 1e9}
    data = msgspec.json.encode(record | facts)
    await cluster.jobs.store.append(subjects.job_state("default", id), data)


async def test_a_job_of_the_longest_time_ends_and_stays(cluster: Cluster) -> None:
    begun = await cluster.jobs.begin("empty", format="json", ttl=bounds.TTL.most)
    await begun.put([b"1"])
    await begun.commit()
    record = await until_over(cluster, begun.id, 20)
    assert (record.state, record.ttl) == ("succeeded", bounds.CENTURY)
    assert (await cluster.jobs.get(begun.id)).state == "succeeded", "it has not expired"
    await cluster.jobs.delete(begun.id)


@pytest.mark.parametrize("ttl", [1e10, 9.2e9, 7.5e9, 1e300])
@pytest.mark.parametrize("end", ["run", "cancel", "delete"])
async def test_a_job_whose_time_was_let_in_can_end(
    place: Site, cluster: Cluster, ttl: float, end: str
) -> None:
    function = "empty" if end == "run" else "nothing_has_this"
    id = f"old{end}{int(ttl) % 997}"
    await write(cluster, id, function=function, state="queued", total=0, ttl=ttl)
    if end == "run":
        await until_over(cluster, id, 20)
        await cluster.jobs.delete(id)
    elif end == "cancel":
        assert (await cluster.jobs.cancel(id)).state == "cancelled"
        assert (await cluster.jobs.get(id)).state == "cancelled", "it has not expired"
        await cluster.jobs.delete(id)
    else:
        await cluster.jobs.delete(id)
    with pytest.raises(UnknownJob):
        await cluster.jobs.get(id)


@pytest.mark.parametrize("kind", VERSIONS)
async def test_a_record_that_is_not_understood_is_listed_and_deleted(
    place: Site, cluster: Cluster, kind: str
) -> None:
    await write(cluster, kind, **({"state": "running"} | VERSIONS[kind]))
    other = await place.cluster()  # Which reads what was there before it.
    for one in (cluster, other):

        async def listed(one: Cluster = one) -> bool:
            found, _ = await one.jobs.list(states=["unreadable"])
            return kind in [record.id for record in found]

        await wait_for(listed, "it is listed")
        status = await one.job(kind).status()
        assert (status.state, status.function) == ("unreadable", "empty")
        assert status.reason and status.is_over
        assert one.jobs._catalogue.reserved("") >= 7, "its room counts"
        for ask in (one.job(kind).cancel, one.job(kind).results):
            with pytest.raises(JobUnreadable, match="delete the job"):
                await ask()
    app = create_app(other, Settings.load())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.get(f"/jobs/{kind}")).json()["state"] == "unreadable"
        for method, path in (("POST", "cancel"), ("GET", "results"), ("GET", "events")):
            answer = await client.request(method, f"/jobs/{kind}/{path}")
            check_problem(answer, 409, "job-unreadable")
        assert (await client.delete(f"/jobs/{kind}")).status_code == 204
        check_problem(await client.get(f"/jobs/{kind}"), 404, "unknown-job")
    for one in (cluster, other):
        with pytest.raises(UnknownJob):
            await one.job(kind).status()


async def test_a_key_that_is_not_understood_is_free(cluster: Cluster) -> None:
    store = cluster.jobs.store
    await store.append(subjects.job_key("default", "abc"), b"[1]")
    known, seq = await store.read_key("abc")
    assert known is None and seq > 0
