"""Jobs outlive everything: their owners, agents and broker are killed, frozen and restarted.

Each test reads every outcome back and compares it with what went in: exactly one each.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from jetmap import Cluster
from jetmap.errors import JetmapError, UnknownJob
from jetmap.jobs.outcomes import StoredOutcomes
from jetmap.jobs.record import Record
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
from servers import AgentProcess, Site, starts
from waiting import PATIENCE, wait_for, wait_until

pytestmark = pytest.mark.anyio


async def stored_until_taken_over(cluster: Cluster, job: str) -> tuple[set[int], float]:
    """Wait for the next owner. Returns the items that had an outcome before, and its time."""
    outcomes = StoredOutcomes(cluster.jobs.store, job, "json")
    deadline = time.monotonic() + PATIENCE
    before: set[int] = set()
    at = time.monotonic()
    while True:
        now = time.monotonic()
        index = await outcomes.refresh()
        if (await cluster.jobs.get(job)).epoch == 2:
            return before, at
        before = {item for start, end in index.ranges() for item in range(start, end)}
        at = now
        assert time.monotonic() < deadline, "it is not taken over"
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
    record = await until_over(cluster, owner.job)
    await check(cluster, record, expected)
    assert record.epoch == 2
    assert owner.process.stdout is not None
    line = await asyncio.wait_for(owner.process.stdout.readline(), PATIENCE)
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
    record = await until_over(again, owner.job)
    await check(again, record, list(range(600)))
    assert len(starts(log)) < 600 + ran, "it began from the start"


@pytest.mark.slow
async def test_what_was_stored_before_a_takeover_counts(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    owner = await carrier(place, ["nap", [0.01234] * 600, None])
    outcomes = StoredOutcomes(cluster.jobs.store, owner.job, "json")

    async def more_than_it_wrote() -> bool:
        done, _ = await outcomes.counts()
        return done >= (await cluster.jobs.get(owner.job)).done + 10

    await wait_for(more_than_it_wrote, "outcomes are stored")
    await owner.kill()
    record = await until_over(cluster, owner.job)
    assert (record.state, record.done, record.epoch) == ("succeeded", 600, 2)
    index = await outcomes.refresh()
    assert record.stored == record.reserved == pytest.approx(index.stored, rel=0.03)


@pytest.mark.slow
async def test_a_store_that_was_lost(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    lost = await submit(cluster, "nap", [0.01] * 500)
    await kill_server(place)
    shutil.rmtree(tmp_path / "store")
    await start_server(place)

    async def submitted() -> Record | None:
        try:
            return await submit(cluster, "empty", [1, 2])
        except JetmapError:
            return None

    record = await wait_for(submitted, "there is a store again")
    assert record is not None
    record = await until_over(cluster, record.id)
    assert await read(cluster, record) == ([1, 2], {})
    with pytest.raises(UnknownJob):
        await cluster.jobs.get(lost.id)


# Beside an agent that the tests share


async def test_an_agent_and_the_broker_are_killed(
    home: Site,
    home_cluster: Cluster,
    agent: AgentProcess,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = await home.agent(home_cluster)
    log = tmp_path / "log"
    record = await submit(home_cluster, "logged", jobs_items(600, 0.01), {"log": str(log)})
    await until_started(log, 100)
    other.kill_host()
    await kill_server(home)
    await start_server(home)
    record = await until_over(home_cluster, record.id)
    await check(home_cluster, record, list(range(600)))
    await wait_until(lambda: home_cluster.stats.agents_lost >= 1, "the agent is missed")
    assert any("has gone silent" in record.message for record in caplog.records)


async def test_items_that_fail_and_crash(home_cluster: Cluster, agent: AgentProcess) -> None:
    bad = {7: "raise", 33: "exit", 90: "kill"}
    items = [(n, bad.get(n, "")) for n in range(200)]
    record = await submit(home_cluster, "hurt", items)
    record = await until_over(home_cluster, record.id)
    assert (record.state, record.done, record.failed) == ("failed", 200, 3)
    values, errors = await read(home_cluster, record)
    assert errors == {7: "raised", 33: "lost", 90: "lost"}
    assert values == [None if n in bad else n for n in range(200)]


async def test_cancelled_and_removed(
    home: Site, home_cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    other = await home.cluster()
    log = tmp_path / "log"
    record = await submit(home_cluster, "logged", jobs_items(5000, 0.02), {"log": str(log)})
    await until_started(log, 20)
    cancelling = asyncio.ensure_future(other.jobs.cancel(record.id))
    await home.until_busy(home_cluster, 0, 1)
    assert (await cancelling).state == "cancelled"
    assert (await home_cluster.jobs.cancel(record.id)).state == "cancelled"
    counts = Counter(start.index for start in starts(log))
    assert max(counts.values()) == 1
    await other.jobs.delete(record.id)
    store = home_cluster.jobs.store

    async def gone() -> bool:
        return record.id not in await store.jobs_in("INPUT") | await store.jobs_in("OUTCOMES")

    await wait_for(gone, "nothing of it is stored")
    assert await look(home_cluster, record.id) is None


async def test_it_expires(home_cluster: Cluster, agent: AgentProcess) -> None:
    upload = await home_cluster.jobs.begin("empty", format="json", ttl=1)
    await upload.put([b"1", b"2"])
    record = await upload.commit()
    assert record.state == "queued"

    async def expired() -> bool:
        return (await home_cluster.jobs.get(record.id)).state == "expired"

    async def removed() -> bool:
        return record.id not in await home_cluster.jobs.store.jobs_in("OUTCOMES")

    await wait_for(expired, "it expires")
    await wait_for(removed, "its outcomes are removed")
