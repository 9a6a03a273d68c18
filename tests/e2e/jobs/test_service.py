"""Jobs on a real broker: idempotency keys, room in the store, limits of time, pages of jobs."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jetmap import Cluster
from jetmap.errors import (
    JetmapError,
    JobsUnavailable,
    KeyBusy,
    KeyReused,
    StoreFull,
    UnknownFunction,
    UnknownJob,
)
from jetmap.jobs.outcomes import StoredOutcomes
from jetmap.jobs.record import Record
from jetmap.jobs.store import Conflict, Store
from jetmap.settings import Settings
from jetmap.wire import subjects
from real_jobs import kill_server, read, start_server, submit, until_over, upload
from servers import FUNCTIONS, AgentProcess, Site, site
from waiting import wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    place = tmp_path_factory.mktemp("jobs")
    async with site(place, store=place / "store") as there:
        yield there


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster, home_agent: AgentProcess) -> Cluster:
    return home_cluster


# Idempotency


async def test_a_retry_gets_the_same_job(cluster: Cluster) -> None:
    first = await (await upload(cluster, [1, 2, 3], caller="a", key="k")).commit()
    again = await (await upload(cluster, [1, 2, 3], caller="a", key="k")).commit()
    assert again.id == first.id
    other = await (await upload(cluster, [1, 2, 3], caller="b", key="k")).commit()
    assert other.id != first.id
    with pytest.raises(KeyReused, match=first.id):
        await (await upload(cluster, [1, 2, 4], caller="a", key="k")).commit()
    with pytest.raises(KeyReused):
        await (await upload(cluster, [1, 2, 3], caller="a", key="k", timeout=9)).commit()


async def test_while_the_first_is_uploading(cluster: Cluster, home: Site) -> None:
    first = await upload(cluster, [1], key="busy")
    other = await home.cluster()
    for where in (cluster, other):
        with pytest.raises(KeyBusy) as caught:
            await upload(where, [1], key="busy")
        assert caught.value.retry_after > 0
    await first.abort()
    second = await (await upload(other, [2], key="busy")).commit()
    assert (await until_over(cluster, second.id)).state == "succeeded"


async def test_an_upload_that_died_is_taken_over(cluster: Cluster, home: Site) -> None:
    code = (
        "import asyncio, sys\n"
        "from jetmap import Cluster\n"
        "async def main():\n"
        "    async with Cluster(sys.argv[1]) as cluster:\n"
        "        upload = await cluster.jobs.begin('empty', format='json', key='died')\n"
        "        await upload.put([b'1'] * 50_000)\n"
        "        print(upload.id, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    uploader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, home.server.url), stdout=subprocess.PIPE
    )
    assert uploader.stdout is not None
    dead = (await uploader.stdout.readline()).decode().strip()
    uploader.kill()
    await uploader.wait()
    deadline = time.monotonic() + 40

    async def taken_over() -> Record | None:
        try:
            return await (await upload(cluster, [1, 2], key="died")).commit()
        except KeyBusy:
            return None

    async def removed() -> bool:
        return dead not in await cluster.jobs.store.jobs_in("INPUT")

    second = await wait_for(taken_over, "the key is free", 20)
    assert second is not None and second.id != dead
    assert (await until_over(cluster, second.id)).total == 2
    await wait_for(removed, "the dead one's input is removed", deadline - time.monotonic())


async def test_an_aborted_upload_leaves_nothing(cluster: Cluster) -> None:
    begun = await upload(cluster, list(range(50_000)))
    await begun.abort()
    with pytest.raises(UnknownJob):
        await cluster.jobs.get(begun.id)
    assert begun.id not in await cluster.jobs.store.jobs_in("INPUT")


# Room


async def test_a_full_store_refuses_with_the_figures(home: Site, cluster: Cluster) -> None:
    small = await home.cluster(settings=settings(home, job_store_bytes=4_000_000))
    with pytest.raises(StoreFull, match="job_store_bytes") as caught:
        await upload(small, ["x" * 1000] * 5_000)
    assert caught.value.limit == 4_000_000 and caught.value.wanted > 0
    record = await (await upload(small, [1])).commit()
    assert (await until_over(small, record.id)).state == "succeeded"


async def test_a_job_that_outgrows_its_reservation(home: Site, cluster: Cluster) -> None:
    small = await home.cluster(settings=settings(home, job_store_bytes=4_000_000))
    begun = await small.jobs.begin("zeros", format="json")
    await begun.put([b"100000"] * 400)
    await begun.commit()
    record = await until_over(small, begun.id, 40)
    assert record.state == "failed" and "job_store_bytes" in (record.reason or ""), record


async def test_an_input_larger_than_what_was_reserved(cluster: Cluster) -> None:
    with pytest.raises(StoreFull, match="reserved"):
        await upload(cluster, ["x" * 1000] * 2_000, reserve=10_000)


@pytest.mark.slow
async def test_a_store_that_was_lost(tmp_path: Path) -> None:
    async with site(tmp_path, store=tmp_path / "store") as there:
        cluster = await there.cluster()
        await there.agent(cluster)
        lost = await submit(cluster, "nap", [0.01] * 500)
        await kill_server(there)
        shutil.rmtree(tmp_path / "store")
        await start_server(there)

        async def submitted() -> Record | None:
            try:
                return await submit(cluster, "empty", [1, 2])
            except JetmapError:
                return None

        record = await wait_for(submitted, "there is a store again", 30)
        assert record is not None
        record = await until_over(cluster, record.id, 40)
        assert await read(cluster, record) == ([1, 2], {})
        with pytest.raises(UnknownJob):
            await cluster.jobs.get(lost.id)


# Running


async def test_no_items(cluster: Cluster) -> None:
    record = await submit(cluster, "empty", [])
    record = await until_over(cluster, record.id)
    assert (record.state, record.total, record.done) == ("succeeded", 0, 0)
    assert await read(cluster, record) == ([], {})


async def test_the_word_on_its_progress_comes_after_its_last_outcome(
    home: Site, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write
    held_up: list[int] = []

    async def late(self: Store, record: Record, after: int, *, ttl: float | None = None) -> int:
        seq = await write(self, record, after, ttl=ttl)

        async def all_are_stored() -> bool:
            done, _ = await StoredOutcomes(self, record.id, record.format).counts()
            return done == record.total

        if record.state == "running" and record.done:
            held_up.append(record.done)
            await wait_for(all_are_stored, "the last outcome")
            # Longer than the carrier takes to hear of it: nothing tells that it waits for this.
            await asyncio.sleep(1)
        return seq

    monkeypatch.setattr(Store, "write", late)
    record = await submit(cluster, "nap", [0.02] * 150)
    record = await until_over(cluster, record.id)
    assert (record.state, record.done, record.epoch) == ("succeeded", 150, 1)
    assert held_up and held_up[0] < 150


async def test_its_timeout(cluster: Cluster) -> None:
    begun = await cluster.jobs.begin("nap", format="json", timeout=0.5)
    await begun.put([b"0.05"] * 200)
    await begun.commit()
    record = await until_over(cluster, begun.id)
    assert record.state == "failed" and "timeout" in (record.reason or "")
    assert 0 < record.done < 200


async def test_its_timeout_is_no_matter_of_other_hosts_clocks(cluster: Cluster) -> None:
    """The next owner may believe that it has run for an hour."""
    begun = await cluster.jobs.begin("nap", format="json", timeout=60)
    await begun.put([b"0.01"] * 30)
    record = await begun.commit()
    store = cluster.jobs.store
    queued, seq = await store.read(record.id)
    assert queued is not None
    hour_ago = time.time() - 3600
    gone = msgspec.structs.replace(
        queued, state="running", owner="gone", epoch=queued.epoch + 1, started=hour_ago, elapsed=3.0
    )
    while True:
        try:
            await store.write(gone, seq)
            break
        except Conflict:
            # Our own carrier was faster.
            newer, seq = await store.read(record.id)
            assert newer is not None and not newer.is_over
            gone = msgspec.structs.replace(gone, epoch=newer.epoch + 1)
    record = await until_over(cluster, record.id, 30)
    assert record.state == "succeeded" and record.epoch > gone.epoch
    assert record.elapsed < 60


async def test_a_job_without_workers_ends_with_its_timeout_and_keeps_nobody_waiting(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, store=tmp_path / "store") as there:
        settings = Settings.load(nats_url=there.server.url, max_running_jobs=1)
        cluster = await there.cluster(settings=settings)
        typed = await there.agent(cluster, str(Path(FUNCTIONS).with_name("typed_functions.py")))
        function = cluster.functions[0].info.name
        await there.agent(cluster)
        typed.kill_host()
        waiting = await cluster.jobs.begin(function, format="json", timeout=4)
        await waiting.put([b"1"])
        await waiting.commit()
        record = await submit(cluster, "empty", [1, 2, 3])
        assert (await until_over(cluster, record.id, 20)).state == "succeeded"
        late = await until_over(cluster, waiting.id, 20)
        assert late.state == "failed" and "timeout of 4 s" in (late.reason or "")


async def test_it_waits_for_workers(tmp_path: Path) -> None:
    async with site(tmp_path, store=tmp_path / "store") as there:
        cluster = await there.cluster()
        agent = await there.agent(cluster)
        agent.kill_host()
        record = await submit(cluster, "empty", [1, 2, 3])
        assert not (await cluster.jobs.get(record.id)).is_over
        await there.agent(cluster)
        record = await until_over(cluster, record.id, 40)
        assert await read(cluster, record) == ([1, 2, 3], {})


async def test_a_function_that_nobody_announced(cluster: Cluster) -> None:
    with pytest.raises(UnknownFunction):
        await cluster.jobs.begin("no_such", format="json")


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_jobs_leave_maps_their_share(home: Site, cluster: Cluster, where: str) -> None:
    """A job has a quarter of a map's weight, whichever dispatcher carries it."""
    other = cluster if where == "here" else await home.cluster()
    record = await submit(other, "nap", [0.01] * 3000)
    await wait_for(lambda: has_done(other, record.id, 50), "it runs")
    before = (await other.jobs.get(record.id)).done
    values = await cluster.map("nap", [0.01] * 600)
    assert values == [0.01] * 600
    still = await other.jobs.get(record.id)
    assert not still.is_over and still.done - before < 400
    await other.jobs.cancel(record.id)
    if other is not cluster:
        await other.aclose()


async def has_done(cluster: Cluster, job: str, items: int) -> bool:
    return (await cluster.jobs.get(job)).done >= items


async def test_pages_of_jobs(home: Site, cluster: Cluster) -> None:
    ids = [(await submit(cluster, "add", [[n]])).id for n in range(5)]
    for id in ids:
        await until_over(cluster, id)
    other = await home.cluster()
    found: list[str] = []
    after: str | None = None
    while True:
        page, after = await other.jobs.list(function="add", limit=2, after=after)
        found += [record.id for record in page]
        if after is None:
            break
    assert found == ids[::-1]
    page, _ = await other.jobs.list(states=("succeeded",), function="add")
    assert len(page) == 5
    assert (await other.jobs.list(states=("cancelled",), function="add"))[0] == []


async def test_a_record_that_is_not_understood_hides_no_other(tmp_path: Path) -> None:
    """A later version of jetmap may have written it."""
    async with site(tmp_path, store=tmp_path / "store") as there:
        cluster = await there.cluster()
        await there.agent(cluster)
        first = await submit(cluster, "empty", [1])
        store = cluster.jobs.store
        await store.append(subjects.job_state(store.pool, "odd"), b'{"id": "odd"}')
        second = await submit(cluster, "empty", [2])
        for record in (first, second):
            assert (await until_over(cluster, record.id)).state == "succeeded"
        other = await there.cluster()
        found, _ = await other.jobs.list()
        assert {record.id for record in found} == {first.id, second.id, "odd"}
        third = await submit(other, "empty", [3])
        assert (await until_over(other, third.id)).state == "succeeded"


async def test_an_embedded_cluster_has_no_jobs() -> None:
    async with Cluster(tasks=FUNCTIONS, share=False, cores=1) as cluster:
        with pytest.raises(JobsUnavailable, match="jetmap up"):
            await cluster.jobs.begin("empty", format="json")


def settings(home: Site, **options: Any) -> Settings:
    return Settings.load(nats_url=home.server.url, **options)
