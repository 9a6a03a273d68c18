"""The owner of an idempotency key, whoever dies, sleeps or comes at the same time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from exchange import Exchange
from gateways import Gateway, gateway
from jetmap import Cluster
from jetmap.errors import JetmapError, KeyBusy, UnknownJob
from jetmap.jobs import store as stores
from jetmap.jobs.record import Record
from jetmap.jobs.store import Store
from jetmap_api import uploads
from jobs_over_http import site as fake_site
from real_jobs import kill_server, start_server, until_over, upload
from servers import Site, site
from waiting import wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


async def submitted(cluster: Cluster, key: str) -> Record | None:
    """None: the key is busy."""
    try:
        return await (await upload(cluster, [1, 2, 3], key=key)).commit()
    except KeyBusy:
        return None


@pytest.mark.parametrize("gateways", [1, 2])
async def test_many_at_once_are_one_job(place: Site, gateways: int) -> None:
    clusters = [await place.cluster() for _ in range(gateways)]
    await place.agent(clusters[0])
    for round in range(15):
        at_once = [submitted(clusters[n % gateways], f"key {round}") for n in range(8)]
        found = {record.id for record in await asyncio.gather(*at_once) if record is not None}
        assert len(found) == 1, f"round {round}"
    listed, _ = await clusters[-1].jobs.list(limit=1000)
    assert len(listed) == 15


class Body:
    """The body of a request; its second half comes later."""

    def __init__(self) -> None:
        self.rest = asyncio.Event()
        self.half = b",4" * 500_000

    @property
    def whole(self) -> bytes:
        return b"[1" + self.half + self.half + b"]"

    async def slowly(self) -> AsyncIterator[bytes]:
        yield b"[1" + self.half
        await self.rest.wait()
        yield self.half + b"]"


@pytest.mark.slow
async def test_an_uploader_that_slept_leaves_the_key_to_whose_it_is(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    first, second = await gateway(place), await gateway(place)
    body = Body()
    headers = {"idempotency-key": "k", "content-type": "application/json"}
    async with httpx.AsyncClient(timeout=60) as client:

        async def post(where: Gateway, content: Any) -> httpx.Response:
            return await client.post(f"{where.url}/jobs/empty", content=content, headers=headers)

        async def busy() -> bool:
            return (await post(second, b"[1]")).status_code == 409

        async def taken_over() -> httpx.Response | None:
            answer = await post(second, body.whole)
            return answer if answer.status_code == 202 else None

        stale = asyncio.ensure_future(post(first, body.slowly()))
        await asyncio.sleep(1)  # A part of it is stored.
        await wait_for(busy, "the first uploads")
        first.process.send_signal(signal.SIGSTOP)
        accepted = await wait_for(taken_over, "the key is taken over", 30)
        assert accepted is not None
        first.process.send_signal(signal.SIGCONT)
        body.rest.set()
        answer = await stale
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:jetmap:upload-lost")
        assert int(answer.headers["retry-after"]) > 0
        for where in (second, first):
            again = await post(where, body.whole)
            assert (again.status_code, again.headers["location"]) == (
                202,
                accepted.headers["location"],
            )
    listed, _ = await cluster.jobs.list()
    assert len(listed) == 1


@pytest.mark.parametrize("by", ["sweep", "key"])
async def test_a_commit_before_an_upload_is_given_up_counts(
    place: Site, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    for cluster in (one, other):
        await cluster.jobs._monitor.background.close()  # The test does the monitor's work.
    begun = await upload(one, [1, 2, 3], key="k")
    await other.jobs._ensure()
    await one.jobs.store.drop_lease(one._session.dispatcher.id)
    committed: list[Record] = []
    store = other.jobs.store
    remove, write = store.remove, store.write

    async def commit(job: str) -> None:
        if job == begun.id and not committed:
            committed.append(await begun.commit())

    async def removing(job: str) -> None:
        await commit(job)
        await remove(job)

    async def writing(record: Record, after: int, **more: Any) -> int:
        await commit(record.id)
        return await write(record, after, **more)

    monkeypatch.setattr(store, "remove", removing)
    monkeypatch.setattr(store, "write", writing)
    if by == "key":
        earlier = await submitted(other, "k")
        assert earlier is not None and earlier.id == begun.id
    else:
        for _ in range(2):
            await other.jobs._monitor._look_for_orphans()
    assert committed
    record = await until_over(one, begun.id)
    assert (record.state, record.done) == ("succeeded", 3)


async def test_the_key_of_a_job_that_has_expired_is_free(place: Site) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    first = await (await upload(one, [1], key="k", ttl=1)).commit()
    await upload(one, [1])  # So it has a lease all the while.

    async def expired() -> bool:
        return (await one.jobs.get(first.id)).state == "expired"

    await wait_for(expired, "it expires", 20)
    for cluster in (other, one):
        record = await submitted(cluster, "k")
        assert record is not None and record.id != first.id


async def test_a_broker_that_is_away_at_the_commit_does_not_block_the_key(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    begun = await upload(one, [1, 2, 3], key="k")
    write = Store.write

    async def away(self: Store, record: Record, after: int, *, ttl: float | None = None) -> int:
        if record.id == begun.id and record.state == "queued":
            await kill_server(place)
        return await write(self, record, after, ttl=ttl)

    monkeypatch.setattr(Store, "write", away)
    monkeypatch.setattr(stores, "RETRY_FOR", 1.0)
    monkeypatch.setattr(uploads, "ABORT_SECONDS", 1.0)
    with pytest.raises(JetmapError):
        await begun.commit()
    await uploads.abort(begun)
    monkeypatch.setattr(Store, "write", write)
    await start_server(place)

    async def again() -> Record | None:
        try:
            return await submitted(other, "k") or await submitted(one, "k")
        except JetmapError:
            return None

    record = await wait_for(again, "the key is free", 20)
    assert record is not None
    assert (await until_over(one, record.id)).state == "succeeded"


async def test_a_commit_whose_word_was_lost_is_the_job_of_its_key(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await place.cluster()
    await place.agent(one)
    begun = await upload(one, [1, 2, 3], key="k")
    write = Store.write

    async def unheard(self: Store, record: Record, after: int, *, ttl: float | None = None) -> int:
        seq = await write(self, record, after, ttl=ttl)
        if record.id == begun.id and record.state == "queued":
            raise JetmapError("the word is lost")
        return seq

    monkeypatch.setattr(Store, "write", unheard)
    with pytest.raises(JetmapError):
        await begun.commit()
    await begun.abort()
    record = await submitted(one, "k")
    assert record is not None and record.id == begun.id


async def test_a_client_that_says_nothing_more_frees_its_key() -> None:
    cluster, jobs = fake_site()
    headers = {"idempotency-key": "k"}
    exchange = Exchange(cluster, "/jobs/double", headers=headers, job_upload_idle=0.2)
    await exchange.write(b"[1, 2")
    await asyncio.wait_for(exchange.task, 10)
    assert exchange.status == 408
    [problem] = exchange.lines
    assert problem["type"] == "urn:jetmap:upload-idle" and "0.2" in problem["detail"]
    assert [found.state for found in jobs.uploads] == ["aborted"]
    again = exchange.beside("/jobs/double", headers=headers)
    await again.write(b"[1, 2]", more=False)
    await again.task
    assert again.status == 202


async def test_a_slow_body_is_no_silence() -> None:
    cluster, _ = fake_site()
    exchange = Exchange(cluster, "/jobs/double", job_upload_idle=0.5)
    for piece in (b"[", b"1", b",", b"2", b"]"):
        await exchange.write(piece)
        await asyncio.sleep(0.2)
    await exchange.write(b"", more=False)
    await exchange.task
    assert exchange.status == 202


async def test_an_aborted_upload_frees_its_own_key_only(place: Site) -> None:
    one = await place.cluster()
    await place.agent(one)
    begun = await upload(one, [1], key="k")
    await begun.abort()
    record = await submitted(one, "k")
    assert record is not None
    await one.jobs._removal.drop(begun._record)
    again = await submitted(one, "k")
    assert again is not None and again.id == record.id
    assert (await one.jobs.get(record.id)).id == record.id
    with pytest.raises(UnknownJob):
        await one.jobs.get(begun.id)
