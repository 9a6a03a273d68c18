"""Jobs outlive everything: their owners, agents and broker are killed, frozen and restarted.

Each test reads every outcome back and compares it with what went in: exactly one each.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from jetmap import Cluster
from jetmap.jobs import monitor
from jetmap.jobs.outcomes import StoredOutcomes
from jetmap.settings import Settings
from jetmap.wire import subjects
from jetmap.wire.messages import Report, encode
from real_jobs import (
    carrier,
    check,
    jobs_items,
    kill_server,
    look,
    read,
    start_server,
    submit,
    until_over,
    until_started,
)
from servers import Site, site, starts
from waiting import wait_for

pytestmark = pytest.mark.anyio

TAKEOVER = 15  # Seconds that are promised.


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


async def stored_until_taken_over(cluster: Cluster, job: str) -> tuple[set[int], float]:
    """Wait for the next owner. Returns the items that had an outcome before, and its time."""
    outcomes = StoredOutcomes(cluster.jobs.store, job, "json")
    deadline = time.monotonic() + TAKEOVER
    before: set[int] = set()
    at = time.monotonic()
    while True:
        now = time.monotonic()
        index = await outcomes.refresh()
        if (await cluster.jobs.get(job)).epoch == 2:
            return before, at
        before = {item for start, end in index.ranges() for item in range(start, end)}
        at = now
        assert time.monotonic() < deadline, f"it is not taken over within {TAKEOVER} s"
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_killed_owner_is_replaced_and_nothing_stored_runs_again(
    place: Site, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    log = tmp_path / "log"
    owner = await carrier(place, ["logged", jobs_items(600, 0.01), {"log": str(log)}])
    await until_started(log, 150)
    await owner.kill()
    before, at = await stored_until_taken_over(cluster, owner.job)
    record = await until_over(cluster, owner.job)
    await check(cluster, record, list(range(600)))
    assert record.epoch == 2
    assert len(before) >= 100
    again = before & {start.index for start in starts(log) if start.at > at}
    assert not again, f"{again} ran although their outcomes were stored"
    # What was in the two workers when the agents heard that its owner is gone, at the most.
    twice = len(starts(log)) - 600
    assert 0 <= twice <= 2 * 20, f"{twice} items ran twice"


async def test_an_owner_that_leaves_hands_over_at_once(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    log = tmp_path / "log"
    owner = await place.cluster()
    record = await submit(owner, "logged", jobs_items(400, 0.01), {"log": str(log)})
    await until_started(log, 50)
    left = time.monotonic()
    await owner.aclose()
    record = await until_over(cluster, record.id)
    await check(cluster, record, list(range(400)))
    assert record.epoch == 2
    assert max(b.at - a.at for a, b in zip(starts(log), starts(log)[1:], strict=False)) < 6, left


@pytest.mark.slow
async def test_two_owners_that_both_believe_it(place: Site, tmp_path: Path) -> None:
    """The first one sleeps, and does not hear on waking that it was replaced; the second one cuts
    longer chunks. Outcomes of the first one's come late: some before the second one's of the same
    items, some behind them."""
    settings = Settings.load(nats_url=place.server.url, chunk_seconds=0.3)
    cluster = await place.cluster(settings=settings)
    await place.agent(cluster)
    log = tmp_path / "log"
    items = jobs_items(1500, 0.02)
    owner = await carrier(place, ["logged", items, {"log": str(log)}], deaf=True)
    await until_started(log, 50)
    owner.signal(signal.SIGSTOP)
    await stored_until_taken_over(cluster, owner.job)

    async def second() -> list[Report]:
        """Return what was stored for the second owner, which knows what was stored before."""
        reports = await stored_reports(cluster, owner.job)
        return [r for r in reports if r.map == subjects.job_map(owner.job, 2)]

    await wait_for(second, "the second one's first outcomes are there")
    started = max(start.index for start in starts(log))
    store = cluster.jobs.store
    expected = list(range(1500))
    late = [(started + 200, 7), (started + 307, 1), (5, 9)]
    for start, count in late:
        values = [-item for item in range(start, start + count)]
        if start > started:
            expected[start : start + count] = values
        report = Report(
            subjects.job_map(owner.job, 1), 0, 0, start, count, msgspec.json.encode(values), [], 0.0
        )
        await store.append(subjects.job_outcomes(store.pool, owner.job), encode(report))
    owner.signal(signal.SIGCONT)
    record = await until_over(cluster, owner.job, 60)
    await check(cluster, record, expected)
    assert record.epoch == 2
    assert owner.process.stdout is not None
    line = await asyncio.wait_for(owner.process.stdout.readline(), 12)
    assert json.loads(line) == "conflict"
    reports = await second()
    assert max(r.count for r in reports) > 3, "both have cut alike"
    for start, count in late[:2]:
        assert any(r.start < start + count and start < r.start + r.count for r in reports)


async def stored_reports(cluster: Cluster, job: str) -> list[Report]:
    store = cluster.jobs.store
    subject = subjects.job_outcomes(store.pool, job)
    found: list[Report] = []
    after = 0
    while some := await store.fetch("OUTCOMES", subject, after):
        found += [msgspec.msgpack.decode(stored.data, type=Report) for stored in some]
        after = some[-1].seq
    return found


async def test_agents_are_killed(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    first = await place.agent(cluster)
    log = tmp_path / "log"
    record = await submit(cluster, "logged", jobs_items(500, 0.01), {"log": str(log)})
    await until_started(log, 100)
    first.kill_host()
    await place.agent(cluster)
    record = await until_over(cluster, record.id, 40)
    await check(cluster, record, list(range(500)))


async def test_items_that_fail_and_crash(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    bad = {7: "raise", 33: "exit", 90: "kill"}
    items = [(n, bad.get(n, "")) for n in range(200)]
    record = await submit(cluster, "hurt", items)
    record = await until_over(cluster, record.id)
    assert (record.state, record.done, record.failed) == ("failed", 200, 3)
    values, errors = await read(cluster, record)
    assert errors == {7: "raised", 33: "lost", 90: "lost"}
    assert values == [None if n in bad else n for n in range(200)]


async def test_the_broker_is_killed(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    log = tmp_path / "log"
    record = await submit(cluster, "logged", jobs_items(800, 0.01), {"log": str(log)})
    await until_started(log, 100)
    await kill_server(place)
    await start_server(place)
    record = await until_over(cluster, record.id, 60)
    await check(cluster, record, list(range(800)))


@pytest.mark.slow
async def test_everything_is_killed_and_started_again(place: Site, tmp_path: Path) -> None:
    first = await place.cluster()
    agent = await place.agent(first)
    log = tmp_path / "log"
    owner = await carrier(place, ["logged", jobs_items(600, 0.01), {"log": str(log)}])
    await first.aclose()  # So that nobody is left who knows of it.
    await until_started(log, 150)
    await owner.kill()
    agent.kill_host()
    await kill_server(place)
    ran = len(starts(log))
    await start_server(place)
    again = await place.cluster()
    await place.agent(again)
    record = await until_over(again, owner.job, 60)
    await check(again, record, list(range(600)))
    assert len(starts(log)) < 600 + ran, "it began from the start"


async def test_cancelled_and_removed(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    other = await place.cluster()
    await place.agent(cluster)
    log = tmp_path / "log"
    record = await submit(cluster, "logged", jobs_items(5000, 0.02), {"log": str(log)})
    await until_started(log, 20)
    cancelling = asyncio.ensure_future(other.jobs.cancel(record.id))
    await place.until_busy(cluster, 0, 1)
    assert (await cancelling).state == "cancelled"
    assert (await cluster.jobs.cancel(record.id)).state == "cancelled"
    counts = Counter(start.index for start in starts(log))
    assert max(counts.values()) == 1
    await other.jobs.delete(record.id)
    await nothing_stays(cluster, record.id)


async def test_deleted_while_it_runs(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    log = tmp_path / "log"
    record = await submit(cluster, "logged", jobs_items(5000, 0.02), {"log": str(log)})
    await until_started(log, 20)
    await cluster.jobs.delete(record.id)
    await place.until_busy(cluster, 0, 1)
    await nothing_stays(cluster, record.id)


async def test_outcomes_that_come_after_it_was_deleted(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SWEEP_SECONDS", 2.0)
    cluster = await place.cluster()
    agent = await place.agent(cluster)
    log = tmp_path / "log"
    record = await submit(cluster, "logged", jobs_items(5000, 0.02), {"log": str(log)})
    await until_started(log, 20)
    agent.signal(signal.SIGSTOP)
    await cluster.jobs.delete(record.id)
    agent.signal(signal.SIGCONT)
    # What it holds may be stored before it hears of that; this is.
    store = cluster.jobs.store
    late = Report(subjects.job_map(record.id, 1), 0, 0, 7, 1, b"[7]", [], 0.0)
    await store.append(subjects.job_outcomes(store.pool, record.id), encode(late))
    assert record.id in await store.jobs_in("OUTCOMES")
    await nothing_stays(cluster, record.id)
    await place.until_ready(cluster, agent)
    await asyncio.sleep(3)
    await nothing_stays(cluster, record.id)


async def nothing_stays(cluster: Cluster, job: str) -> None:
    store = cluster.jobs.store

    async def gone() -> bool:
        return job not in await store.jobs_in("INPUT") | await store.jobs_in("OUTCOMES")

    await wait_for(gone, "nothing of it is stored", 40)
    assert await look(cluster, job) is None


async def test_it_expires(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    upload = await cluster.jobs.begin("empty", format="json", ttl=1)
    await upload.put([b"1", b"2"])
    record = await upload.commit()
    assert record.state == "queued"
    deadline = time.monotonic() + 15

    async def expired() -> bool:
        return (await cluster.jobs.get(record.id)).state == "expired"

    async def removed() -> bool:
        return record.id not in await cluster.jobs.store.jobs_in("OUTCOMES")

    await wait_for(expired, "it expires", 15)
    await wait_for(removed, "its outcomes are removed", deadline - time.monotonic())
