"""Many readers of a job, and of many jobs: what they ask of the store, hold and end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from exchange import Exchange
from fake_jobs import FakeJobs
from jetmap.errors import BrokerUnreachable, UnknownJob
from jetmap.jobs import readers
from jetmap.jobs.record import Record
from jetmap_api.job_events import EventId, events
from jobs_over_http import events_of, site, values_of
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio

MANY = 500


async def read_events(jobs: FakeJobs, record: Record, found: list[bytes], last: str = "") -> None:
    async with aclosing(events(jobs, record, EventId.read(last), False)) as pieces:  # type: ignore[arg-type]
        async for piece in pieces:
            found.append(piece)


class Crowd:
    """Readers of one job's events."""

    def __init__(self, jobs: FakeJobs, record: Record, count: int, last: str = "") -> None:
        self.found: list[list[bytes]] = [[] for _ in range(count)]
        self.tasks = [
            asyncio.create_task(read_events(jobs, record, found, last)) for found in self.found
        ]

    def values(self) -> list[dict[int, Any]]:
        return [values_of(events_of(b"".join(found).decode())) for found in self.found]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LOOK_SECONDS", 0.01)


async def test_questions_do_not_grow_with_readers() -> None:
    asked = {}
    for count in (1, MANY):
        jobs = FakeJobs()
        record = jobs.add("a", 30)
        jobs.put("a", 0, *range(10))
        crowd = Crowd(jobs, record, count)
        await wait_until(lambda jobs=jobs, n=count: jobs.waiters == n, "they wait")
        for start in (10, 20):
            jobs.put("a", start, *range(start, start + 10))
            await wait_until(lambda jobs=jobs, n=count: jobs.waiters == n, "they wait again")
        jobs.end("a", "succeeded")
        await asyncio.gather(*crowd.tasks)
        assert crowd.values() == [{n: n for n in range(30)}] * count
        assert len(jobs.readers) == 0 and not jobs.store.listening["a"], "it ends with the last"
        asked[count] = sum(jobs.store.asked.values())
    assert asked[MANY] <= asked[1] + 4, asked


async def test_idle_readers_ask_nothing_but_one_question_for_all(quick: None) -> None:
    jobs = FakeJobs()
    crowds = [Crowd(jobs, jobs.add(f"job{n}", 5, epoch=1), 50) for n in range(20)]
    await wait_until(lambda: jobs.waiters == 1000, "they wait")
    await wait_until(lambda: jobs.store.asked["last"] > 0, "it looks")
    before = jobs.store.asked.copy()
    await wait_until(lambda: jobs.store.asked["last"] > before["last"] + 20, "it looks again")
    after = jobs.store.asked - before
    assert set(after) == {"last"}, after
    for n, crowd in enumerate(crowds):
        jobs.end(f"job{n}", "cancelled")
        await asyncio.gather(*crowd.tasks)
    looked = jobs.store.asked["last"]
    await turns(50)
    assert jobs.store.asked["last"] == looked, "nothing looks when nobody reads"


async def test_a_slow_reader_holds_up_nobody_and_keeps_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "CACHE_BYTES", 25_000)
    jobs = FakeJobs()
    record = jobs.add("a", 500)
    slow = events(jobs, record, EventId(), False)  # type: ignore[arg-type]
    jobs.put("a", 0, "x" * 1000)
    for _ in range(2):
        await anext(slow)  # Then it reads no more.
    quick = Crowd(jobs, record, 10)
    for start in range(1, 500):
        jobs.put("a", start, "x" * 1000)
        if start % 50 == 0:
            await wait_until(lambda: jobs.waiters == 10, "the others have read")
    jobs.end("a", "succeeded")
    await asyncio.gather(*quick.tasks)
    assert {len(values) for values in quick.values()} == {500}
    assert jobs.readers._cache.size <= 25_000
    rest = [piece async for piece in slow]
    assert len(values_of(events_of(b"".join(rest).decode()))) == 499


async def test_what_was_not_announced_is_found(quick: None) -> None:
    jobs = FakeJobs()
    record = jobs.add("a", 2, epoch=1)
    crowd = Crowd(jobs, record, 20)
    await wait_until(lambda: jobs.waiters == 20, "they wait")
    silent, jobs.store.listening = jobs.store.listening, {}
    jobs.put("a", 0, 5, 6)
    jobs.store.listening = silent
    await wait_until(lambda: all(len(found) == 2 for found in crowd.found), "they have read it")
    jobs.end("a")
    await asyncio.gather(*crowd.tasks)


async def test_a_replica_that_lags_behind_the_announcement() -> None:
    jobs = FakeJobs()
    record = jobs.add("a", 2)
    crowd = Crowd(jobs, record, 20)
    await wait_until(lambda: jobs.waiters == 20, "they wait")
    jobs.put("a", 0, 5)
    stream = jobs.store.streams["jetmap.outcome.default.a"]
    lacking = stream.pop()
    asked = jobs.store.asked["fetch"]
    await wait_until(lambda: jobs.store.asked["fetch"] >= asked + 2, "it asks again")
    stream.append(lacking)
    await wait_until(lambda: all(len(found) == 2 for found in crowd.found), "they have read it")
    jobs.put("a", 1, 6)
    jobs.end("a")
    await asyncio.gather(*crowd.tasks)
    assert crowd.values() == [{0: 5, 1: 6}] * 20


@pytest.mark.parametrize("end", ["delete", "expire", "cancel"])
async def test_a_job_that_goes_while_it_is_read(end: str) -> None:
    jobs = FakeJobs()
    crowd = Crowd(jobs, jobs.add("a", 2), 50)
    await wait_until(lambda: jobs.waiters == 50, "they wait")
    if end == "expire":
        jobs.expire("a")
    else:
        await getattr(jobs, end)("a")
    await asyncio.gather(*crowd.tasks)
    for found in crowd.found:
        assert events_of(b"".join(found).decode())[-1].name == "failed"
    assert len(jobs.readers) == 0


async def test_readers_that_leave_one_by_one() -> None:
    jobs = FakeJobs()
    crowd = Crowd(jobs, jobs.add("a", 2), 10)
    await wait_until(lambda: jobs.waiters == 10, "they wait")
    for left in range(9, -1, -1):
        crowd.tasks.pop().cancel()
        await wait_until(lambda n=left: jobs.waiters == n, "it has left")
        assert len(jobs.readers) == bool(left)
    await wait_until(lambda: not jobs.store.listening["a"], "it is not listened to")
    assert jobs.store.asked["listen"] == 1
    again = Crowd(jobs, jobs.records["a"], 1)
    await wait_until(lambda: jobs.waiters == 1, "it waits")
    jobs.put("a", 0, 1, 2)
    jobs.end("a")
    await asyncio.gather(*again.tasks)
    assert again.values() == [{0: 1, 1: 2}]


@pytest.mark.parametrize("accept", ["application/json", "application/jsonl", "application/msgpack"])
async def test_results_that_are_waited_for_share_too(accept: str) -> None:
    cluster, jobs = site(hold=True)
    jobs.add("a", 4, format="json")
    path = "/jobs/a/results?wait=60"
    first = Exchange(cluster, path, accept=accept, method="GET")
    exchanges = [first, *(first.beside(path, accept=accept, method="GET") for _ in range(99))]
    for exchange in exchanges:
        await exchange.write(b"", more=False)
    await wait_until(lambda: jobs.waiters == 100, "they wait")
    before = jobs.store.asked.total()
    jobs.put("a", 0, 1, 2, 3, 4)
    jobs.end("a")
    await asyncio.gather(*(exchange.task for exchange in exchanges))
    assert jobs.store.asked.total() - before <= 12
    assert {bytes(exchange.output) for exchange in exchanges} == {bytes(exchanges[0].output)}
    assert len(jobs.readers) == 0


async def test_while_the_broker_is_away(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are given one error each, and may begin again."""
    monkeypatch.setattr(readers, "AWAY_SECONDS", 0)
    jobs = FakeJobs()
    record = jobs.add("a", 1)
    reader = jobs.reader(record)
    await reader.changed()  # It listens from now on.
    waiting = asyncio.create_task(reader.changed())
    await wait_until(lambda: jobs.waiters == 1, "it waits")
    jobs.store.away = 1 << 30
    with pytest.raises(BrokerUnreachable):
        await waiting
    jobs.store.away = 0
    asked = jobs.store.asked["last"]
    await wait_until(lambda: jobs.store.asked["last"] > asked + 1, "it answers again")
    again = asyncio.create_task(reader.changed())
    await wait_until(lambda: jobs.waiters == 1, "it waits again")
    await jobs.readers.on_reconnect()
    await again
    gone = asyncio.create_task(reader.changed())
    await wait_until(lambda: jobs.waiters == 1, "it waits again")
    del jobs.records["a"]
    await jobs.readers.on_reconnect()
    with pytest.raises(UnknownJob):
        await gone
    reader.close()
    reader.close()
    assert len(jobs.readers) == 0
