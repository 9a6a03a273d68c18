"""A store on a small file system, filled to its end: what frees room works when there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from httpx import ASGITransport, AsyncClient

from jetmap import Cluster
from jetmap.errors import StoreFull, UnknownJob
from jetmap.jobs import monitor
from jetmap.jobs.record import Record
from jetmap.nats.server import NatsServer
from jetmap.settings import Settings
from jetmap_api import create_app
from over_http import check_problem
from real_jobs import carrier, kill_server, read, until_over
from servers import Site, site
from small_disk import DISK, disk
from waiting import wait_for

pytestmark = pytest.mark.anyio

__all__ = ["disk"]  # A fixture.

SIZE = 100_000  # Bytes of a value; a third more as JSON.


@pytest.fixture
async def place(tmp_path: Path, disk: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=disk / "store") as there:
        yield there


async def submitted(cluster: Cluster, count: int) -> str:
    begun = await cluster.jobs.begin("zeros", format="json")
    await begun.put([b"%d" % SIZE] * count)
    return (await begun.commit()).id


async def until_full(cluster: Cluster, job: str) -> Record:
    seen: list[Record] = []

    async def waits() -> Record | None:
        record = await cluster.jobs.get(job)
        seen[:] = [record]
        return record if record.waiting_for == "room" else None

    found = await wait_for(waits, "it waits for room", 90, lambda: str(seen))
    assert found is not None and found.public_state == "waiting"
    assert "delete finished jobs" in (found.reason or "")
    return found


def gateway(cluster: Cluster) -> AsyncClient:
    app = create_app(cluster, Settings.load())
    return AsyncClient(transport=ASGITransport(app), base_url="http://localhost")


async def test_a_full_store_is_emptied_and_the_job_goes_on(place: Site, disk: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    old = await submitted(cluster, 45)
    assert (await until_over(cluster, old)).state == "succeeded"
    running = await submitted(cluster, 110)
    waiting = await until_full(cluster, running)
    assert waiting.done < 110
    async with gateway(cluster) as client:
        others: list[str] = []  # Jobs that found the room of records, while that was released.

        async def refused() -> None:
            while True:
                answer = await client.post("/jobs/zeros", json=["x" * 800_000])
                if answer.status_code != 202 or len(others) > DISK / 800_000:
                    break
                others.append(answer.json()["id"])
            problem = check_problem(answer, 507, "store-full")
            assert "Delete finished jobs" in problem["detail"] and problem["used"] > DISK // 2

        await refused()
        await kill_server(place)
        port = place.server.port
        await place.server.stop()
        place.server = NatsServer(port=port, store=disk / "store")
        await place.server.start()
        await wait_for(lambda: _answers(cluster), "the broker is back")
        states: list[dict[str, str]] = []

        async def shown() -> bool:
            listed = (await client.get("/jobs")).json()["jobs"]
            states[:] = [{job["id"]: job["state"] for job in listed if job["id"] not in others}]
            return states == [{old: "succeeded", running: "waiting"}]

        # The job tries again with the new server, and is shown as running meanwhile.
        await wait_for(shown, "the job waits again", 90, lambda: str(states))
        await refused()  # Before it waited, there may have been room.
        for job in (old, *others):
            assert (await client.delete(f"/jobs/{job}")).status_code == 204
        check_problem(await client.get(f"/jobs/{old}"), 404, "unknown-job")
    record = await until_over(cluster, running)
    assert (record.state, record.done, record.failed) == ("succeeded", 110, 0)
    values, errors = await read(cluster, record)
    assert len(values) == 110 and not errors
    assert not await cluster.jobs.store.jobs_in("INPUT")


@pytest.mark.slow
async def test_a_job_in_a_full_store_is_taken_over(place: Site) -> None:
    heir = await place.cluster()
    await place.agent(heir)
    old = await submitted(heir, 45)
    assert (await until_over(heir, old)).state == "succeeded"
    owner = await carrier(place, ["zeros", [SIZE] * 125, None])
    await until_full(heir, owner.job)
    # No record finds any room, the one of a new owner neither.
    await _fill(heir)
    await owner.kill()
    await until_full(heir, owner.job)
    async with gateway(heir) as client:
        assert (await client.delete(f"/jobs/{old}")).status_code == 204
    record = await until_over(heir, owner.job)
    assert (record.state, record.done, record.failed) == ("succeeded", 125, 0)
    assert record.epoch == 2
    values, errors = await read(heir, record)
    assert len(values) == 125 and not errors


@pytest.mark.slow
async def test_jobs_expire_in_a_full_store(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "EXPIRY_GRACE", 3.0)
    monkeypatch.setattr(monitor, "SWEEP_SECONDS", 4.0)
    cluster = await place.cluster()
    await place.agent(cluster)
    begun = await cluster.jobs.begin("zeros", format="json", ttl=20)
    await begun.put([b"%d" % SIZE] * 45)
    short = (await begun.commit()).id
    assert (await until_over(cluster, short)).state == "succeeded"
    running = await submitted(cluster, 125)
    await until_full(cluster, running)
    await _fill(cluster)
    # Nobody deletes anything, and the broker has no room for the marker of an expired record: what
    # the first job held is the room that comes.
    record = await until_over(cluster, running, 120)
    assert (record.state, record.done, record.failed) == ("succeeded", 125, 0)
    values, errors = await read(cluster, record)
    assert len(values) == 125 and not errors
    await wait_for(lambda: _is_gone(cluster, short), "the first job is forgotten")


async def _is_gone(cluster: Cluster, job: str) -> bool:
    """Return whether the broker has expired the job, or a sweep has removed it."""
    try:
        return (await cluster.jobs.get(job)).state == "expired"
    except UnknownJob:
        return True


async def _answers(cluster: Cluster) -> bool:
    return cluster.connected and bool(await cluster.jobs.list())


@pytest.mark.slow
async def test_what_runs_in_a_full_store_is_cancelled_and_deleted(place: Site) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    running = await submitted(one, 250)
    await until_full(one, running)
    # No record finds any room: nothing is left of what is kept for them.
    await _fill(one)
    async with gateway(other) as client:
        cancelled = await client.post(f"/jobs/{running}/cancel")
        assert cancelled.status_code in (202, 507), cancelled.text
        assert (await client.delete(f"/jobs/{running}")).status_code == 204
    for cluster in (one, other):

        async def gone(cluster: Cluster = cluster) -> bool:
            return not (await cluster.jobs.list())[0]

        await wait_for(gone, "it is not listed")
    again = await submitted(one, 5)
    assert (await until_over(other, again)).state == "succeeded"


async def _fill(cluster: Cluster) -> None:
    """Take all room that is left, as others on the same server may do."""
    store = cluster.jobs.store
    await store.filler.release()
    try:
        for _ in range(400):
            await store.append(f"jetmap.outcome.{store.pool}.others", bytes(SIZE))
        pytest.fail("the store is not full")
    except StoreFull as error:
        assert error.used > DISK // 2


@pytest.mark.slow
async def test_a_refused_upload_leaves_nothing(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    await (await cluster.jobs.begin("zeros", format="json")).abort()
    await _fill(cluster)
    async with gateway(cluster) as client:
        body = msgspec.json.encode([SIZE] * 50_000)
        answer = await client.post(
            "/jobs/zeros", content=body, headers={"content-type": "application/json"}
        )
        check_problem(answer, 507, "store-full")
        assert (await client.get("/jobs")).json()["jobs"] == []
    assert await cluster.jobs.store.jobs_in("INPUT") == set()
    await cluster.jobs.store.remove("others")
    job = await submitted(cluster, 1)
    assert (await until_over(cluster, job)).state == "succeeded"


class Limited(NatsServer):
    """A server whose account may store little."""

    def _configuration(self, directory: Path, log: Path) -> str:
        account = "jetstream { max_file: 8MB, max_mem: 64MB }"
        users = "users: [ { user: u, password: p } ]"
        return (
            super()._configuration(directory, log)
            + f"accounts {{ A {{ {account}, {users} }} }}\nno_auth_user: u\n"
        )


@pytest.mark.slow
async def test_the_limit_of_the_account_is_asked(tmp_path: Path) -> None:
    async with site(tmp_path, Limited, store=tmp_path / "store") as there:
        cluster = await there.cluster()
        await there.agent(cluster)
        with pytest.raises(StoreFull) as caught:
            await cluster.jobs.begin("zeros", format="json", reserve=9 << 20)
        assert caught.value.limit < 8 << 20
        job = await submitted(cluster, 2)
        assert (await until_over(cluster, job)).state == "succeeded"
