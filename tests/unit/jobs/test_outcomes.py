"""A job's outcomes as they are read from the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from jetmap.errors import BrokerUnreachable, JobEnded
from jetmap.jobs import outcomes as module
from jetmap.jobs import streams
from jetmap.jobs.outcomes import (
    CACHE_BYTES,
    PARTS_TOGETHER,
    OutcomeEvent,
    OutcomeIndex,
    StoredOutcomes,
)
from jetmap.jobs.store import FETCH_MESSAGES
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import JobSettings
from jetmap.wire import subjects
from jetmap.wire.messages import Format, encode
from stored_outcomes import (
    JOB,
    POOL,
    SUBJECT,
    CountingStore,
    append,
    first_wins,
    opened,
    overlapping,
    report,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAG_EVERY", 0.002)
    monkeypatch.setattr(module, "RETRY_EVERY", 0.01)


@pytest.fixture
async def store() -> CountingStore:
    connection = MemoryBroker().connect()
    store = CountingStore(connection, POOL)
    await streams.ensure(connection, store, JobSettings())
    return store


def over(total: int) -> Callable[[], Awaitable[int | None]]:
    async def more() -> int | None:
        return total

    return more


async def never() -> int | None:
    raise AssertionError("it was all there")


async def in_order(outcomes: StoredOutcomes, total: int, start: int = 0) -> list[tuple[int, str]]:
    return opened([batch async for batch in outcomes.ordered(start, more=over(total))])


async def all_events(outcomes: StoredOutcomes, total: int, after: int = 0) -> list[OutcomeEvent]:
    return [event async for event in outcomes.events(after, more=over(total))]


# Pages


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_pages_follow_each_other(store: CountingStore, format: Format) -> None:
    await append(store, *(report(i, 7, failing=[i + 3], format=format) for i in range(0, 70, 7)))

    at: int | None = 0
    found: list[tuple[int, str]] = []
    while at is not None:
        # Each by another reader, as behind a load balancer.
        page = await StoredOutcomes(store, JOB, format).page(at, 16, 70)
        assert page.start == at
        found += opened(page.batches, format)
        assert page.next == (at + 16 if at + 16 < 70 else None)
        at = page.next
    assert found == [(i, "a!" if i % 7 == 3 else "a") for i in range(70)]


async def test_a_page_is_what_is_there_without_a_gap(store: CountingStore) -> None:
    outcomes = StoredOutcomes(store, JOB, "json")
    assert await outcomes.page(0, 10, None) == module.Page(0, [], 0)
    assert await outcomes.page(0, 10, 0) == module.Page(0, [], None)

    await append(store, report(0, 5), report(8, 2))
    page = await outcomes.page(0, 10, 10)
    assert (opened(page.batches), page.next) == ([(i, "a") for i in range(5)], 5)
    assert await outcomes.page(5, 10, 10) == module.Page(5, [], 5)

    await append(store, report(5, 3, "b"))
    page = await outcomes.page(5, 10, 10)
    assert (opened(page.batches)[-1], page.next) == ((9, "a"), None)
    page = await outcomes.page(5, 10, None)
    assert (opened(page.batches)[-1], page.next) == ((9, "a"), 10)
    assert await outcomes.page(10, 10, 10) == module.Page(10, [], None)
    assert await outcomes.counts() == (10, 0)


async def test_a_page_stops_reading_when_its_items_are_covered(store: CountingStore) -> None:
    sent = await append(store, *(report(i, 10) for i in range(0, 2000, 10)))
    outcomes = StoredOutcomes(store, JOB, "json")

    page = await outcomes.page(0, 25, 2000)

    assert [i for i, _ in opened(page.batches)] == list(range(25))
    assert store.fetches == 1
    assert outcomes.index.last <= sent[FETCH_MESSAGES]

    # What the index knows is read alone, and what was read for a page serves the next one.
    index = await outcomes.refresh()
    store.fetches = store.messages = 0
    reader = StoredOutcomes(store, JOB, "json", index)
    await reader.page(1000, 25, 2000)
    assert (store.fetches, store.messages) == (1, 3)
    await reader.page(1025, 5, 2000)
    assert store.fetches == 1


async def test_a_page_of_large_values_ends_early(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES", 4000)
    await append(store, *(report(i, 10, "x" * 200) for i in range(0, 100, 10)))

    page = await StoredOutcomes(store, JOB, "json").page(0, 100, 100)

    assert page.next == 20
    assert [i for i, _ in opened(page.batches)] == list(range(20))


# Every reader indexes to the same


@pytest.mark.parametrize("seed", range(2))
async def test_of_overlapping_outcomes_every_reader_gets_the_first(
    store: CountingStore, seed: int
) -> None:
    reports = overlapping(seed)
    sent = await append(store, *reports)
    model = sorted(first_wins(reports).items())
    failed = sum(who.endswith("!") for _, who in model)

    # With an index of its own, which grows as they read, and with one that is there already.
    shared = OutcomeIndex()
    for index in (None, shared, shared):
        outcomes = StoredOutcomes(store, JOB, "json", index)
        assert await in_order(outcomes, 300) == model
        assert await in_order(outcomes, 300, 123) == model[123:]
        pages = [
            await StoredOutcomes(store, JOB, "json", index).page(i, 50, 300) for i in (0, 50, 250)
        ]
        assert [opened(p.batches) for p in pages] == [model[:50], model[50:100], model[250:]]
        assert await outcomes.counts() == (300, failed)

    events = await all_events(StoredOutcomes(store, JOB, "json"), 300)
    assert sorted(opened(b for e in events for b in e.batches)) == model
    assert (events[-1].done, events[-1].failed) == (300, failed)
    done = 0
    for event in events:
        done += sum(batch.count for batch in event.batches)
        assert event.done == done

    # From any number on, known to the index or not: no gap, no repeat.
    for after in [0, *sent[::7], sent[-1] + 10]:
        for index in (None, shared):
            rest = await all_events(StoredOutcomes(store, JOB, "json", index), 300, after)
            assert rest == [event for event in events if event.seq > after]


async def test_other_jobs_and_empty_reports_are_not_seen(store: CountingStore) -> None:
    other = subjects.job_outcomes(POOL, "other")
    for start in range(0, 30, 10):
        await store.append(other, encode(report(start, 10, "other")))
        await append(store, report(start, 10), report(start + 10, 0))

    assert await in_order(StoredOutcomes(store, JOB, "json"), 30) == [(i, "a") for i in range(30)]
    events = await all_events(StoredOutcomes(store, JOB, "json"), 30)
    assert [event.done for event in events] == [10, 20, 30]


# While the job runs


@pytest.mark.parametrize("seed", range(1))
async def test_readers_keep_up_with_what_is_still_appended(store: CountingStore, seed: int) -> None:
    reports = overlapping(seed, items=600, messages=150)
    model = sorted(first_wins(reports).items())
    news = asyncio.Condition()
    running = True

    async def more() -> int | None:
        async with news:
            if running:
                await news.wait()
            return None if running else 600

    async def read(outcomes: StoredOutcomes, start: int) -> list[tuple[int, str]]:
        return opened([batch async for batch in outcomes.ordered(start, more=more)])

    async def watch(outcomes: StoredOutcomes) -> list[OutcomeEvent]:
        return [event async for event in outcomes.events(0, more=more)]

    shared = OutcomeIndex()
    reading = [
        asyncio.create_task(read(StoredOutcomes(store, JOB, "json", index), start))
        for index, start in ((None, 0), (shared, 0), (shared, 333))
    ]
    watching = [
        asyncio.create_task(watch(StoredOutcomes(store, JOB, "json", index)))
        for index in (None, shared)
    ]
    for each in reports:
        await append(store, each)
        async with news:
            news.notify_all()
    running = False
    async with news:
        news.notify_all()

    assert [await task for task in reading] == [model, model, model[333:]]
    first, second = [await task for task in watching]
    assert first == second
    assert sorted(opened(b for e in first for b in e.batches)) == model


async def test_what_comes_is_given_out_before_more_is_asked_for(store: CountingStore) -> None:
    await append(store, report(0, 10), report(20, 10))
    stream = StoredOutcomes(store, JOB, "json").ordered(more=never)

    assert opened([await anext(stream)]) == [(i, "a") for i in range(10)]
    with pytest.raises(AssertionError, match="all there"):
        await anext(stream)


async def test_a_missing_tail_ends_an_ended_job(store: CountingStore) -> None:
    await append(store, report(0, 10), report(15, 5))

    assert await in_order(StoredOutcomes(store, JOB, "json"), 100) == [(i, "a") for i in range(10)]
    events = await all_events(StoredOutcomes(store, JOB, "json"), 100)
    assert [event.done for event in events] == [10, 15]
    assert await in_order(StoredOutcomes(store, "nothing", "json"), 100) == []
    assert await all_events(StoredOutcomes(store, "nothing", "json"), 100) == []


async def test_a_removed_job_ends_its_readers(store: CountingStore) -> None:
    await append(store, *(report(i, 10) for i in range(0, 100, 10)))
    index = await StoredOutcomes(store, JOB, "json").refresh()
    await store.remove(JOB)
    outcomes = StoredOutcomes(store, JOB, "json", index)

    for read in (in_order(outcomes, 100), all_events(outcomes, 100), outcomes.page(0, 10, 100)):
        with pytest.raises(JobEnded, match="not in the store any more"):
            await read
    assert index.is_outdated


# Brokers


async def test_readers_wait_for_a_replica_that_lags(store: CountingStore) -> None:
    sent = await append(store, *(report(i, 10) for i in range(0, 100, 10)))

    def catch_up() -> None:
        assert store.shown is not None
        store.shown += 1

    store.late = catch_up
    store.shown = sent[2]
    assert len(await in_order(StoredOutcomes(store, JOB, "json"), 100)) == 100
    store.shown = sent[2]
    assert len(await all_events(StoredOutcomes(store, JOB, "json"), 100)) == 10
    # Another reader has seen more than this replica has.
    store.shown = None
    index = await StoredOutcomes(store, JOB, "json").refresh()
    store.shown = sent[2]
    assert len(await in_order(StoredOutcomes(store, JOB, "json", index), 100)) == 100
    store.shown = sent[2]
    rest = await all_events(StoredOutcomes(store, JOB, "json"), 100, after=sent[6])
    assert [event.seq for event in rest] == sent[7:]
    store.shown = sent[2]
    assert await StoredOutcomes(store, JOB, "json").complete()


async def test_a_replica_that_lags_for_long_is_not_waited_for(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAG_SECONDS", 0.2)
    sent = await append(store, *(report(i, 10) for i in range(0, 100, 10)))
    index = await StoredOutcomes(store, JOB, "json").refresh()

    store.shown = sent[2]
    assert len(await in_order(StoredOutcomes(store, JOB, "json"), 100)) == 30
    with pytest.raises(BrokerUnreachable, match="lags behind"):
        await in_order(StoredOutcomes(store, JOB, "json", index), 100)
    for known in (None, index):
        outcomes = StoredOutcomes(store, JOB, "json", known)
        assert len(await all_events(outcomes, 100)) == 3
    assert not await StoredOutcomes(store, JOB, "json").complete()


async def test_reading_goes_on_when_the_broker_is_back(store: CountingStore) -> None:
    await append(store, report(0, 10))
    store.away = 2

    assert len(await in_order(StoredOutcomes(store, JOB, "json"), 10)) == 10


# Cost


@pytest.mark.parametrize("order", ["in order", "nearly", "backwards"])
async def test_many_messages_are_read_in_batches_and_in_little_memory(
    store: CountingStore, order: str
) -> None:
    numbers = list(range(300))
    if order == "nearly":
        rng = random.Random(1)
        numbers.sort(key=lambda n: n + rng.random() * 12)
    elif order == "backwards":
        numbers.reverse()
    text = "x" * 1000
    bodies = [encode(report(n * 100, 100, text)) for n in numbers]
    size = sum(map(len, bodies))
    assert size > 3 * CACHE_BYTES
    for at in range(0, 300, 30):
        await asyncio.gather(*(store.append(SUBJECT, b) for b in bodies[at : at + 30]))

    index = OutcomeIndex()
    for known in (False, True):
        store.fetches = store.messages = 0
        outcomes = StoredOutcomes(store, JOB, "json", index)
        at = 0
        async for batch in outcomes.ordered(more=over(30_000)):
            assert batch.start == at
            at += batch.count
            assert outcomes._kept.size <= CACHE_BYTES
        assert at == 30_000
        assert store.fetches <= 40
        # Backwards, all must be folded before the first can be given out.
        assert store.messages <= (600 if order == "backwards" and not known else 400)
        assert outcomes._kept.size == 0

    store.fetches = store.messages = 0
    events = 0
    async for event in StoredOutcomes(store, JOB, "json").events(0, more=over(30_000)):
        events += 1
        assert event.done == 100 * events
    assert (events, store.messages) == (300, 300)
    # An event reader, who may be slow, holds 1 MiB of what comes next.
    assert store.fetches <= 40


async def test_values_in_parts_are_read_with_their_report(store: CountingStore) -> None:
    first, second = report(0, 3), report(3, 2)
    cut = [second.values[at : at + 5] for at in range(0, len(second.values), 5)]
    assert len(cut) > PARTS_TOGETHER / 4
    parts = [msgspec.structs.replace(second, count=0, values=part, final=None) for part in cut]
    seqs = await append(store, parts[0], first, *parts[1:])
    whole = msgspec.structs.replace(
        second, values=b"", size=len(second.values), parts=[seqs[0], *seqs[2:]]
    )
    await append(store, whole)
    expected = [(item, "a") for item in range(5)]
    outcomes = StoredOutcomes(store, JOB, "json")
    assert opened((await outcomes.page(0, 10, 5)).batches) == expected
    assert await in_order(StoredOutcomes(store, JOB, "json"), 5) == expected
    events = await all_events(StoredOutcomes(store, JOB, "json"), 5)
    assert [event.done for event in events] == [3, 5]
    assert opened(batch for event in events for batch in event.batches) == expected
