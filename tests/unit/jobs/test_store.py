"""The streams of jobs: records written once, messages read in batches, and what is missing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap.errors import BrokerUnreachable
from jetmap.jobs import store as stores
from jetmap.jobs import streams
from jetmap.jobs.record import KeyRecord, Record
from jetmap.jobs.store import Conflict, Store
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import JobSettings
from jetmap.wire import subjects
from virtual_time import run
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

RECORD = Record(id="j", function="f", format="json", state="queued")


@pytest.fixture
async def store() -> Store:
    connection = MemoryBroker().connect()
    made = Store(connection, "p")
    await streams.ensure(connection, made, JobSettings())
    return made


async def test_a_record_is_written_by_whoever_knows_the_last_one(store: Store) -> None:
    assert await store.read("j") == (None, 0)
    first = await store.write(RECORD, 0)
    assert await store.read("j") == (RECORD, first)
    # The answer to this very message may have been lost.
    assert await store.write(RECORD, 0) == first
    running = Record(id="j", function="f", format="json", state="running")
    with pytest.raises(Conflict):
        await store.write(running, 0)
    second = await store.write(running, first)
    assert not await store.forget("j", first), "it was written since"
    assert await store.forget("j", second)
    assert await store.read("j") == (None, 0)


async def test_keys_and_leases(store: Store) -> None:
    key = KeyRecord(job="j", owner="d")
    seq = await store.write_key("k", key, 0, 60)
    assert await store.read_key("k") == (key, seq)
    await store.forget_key("k", seq)
    assert await store.read_key("k") == (None, 0)
    assert not await store.has_lease("d")
    await store.renew_lease("d", 10)
    await store.renew_lease("d", 10)
    assert await store.has_lease("d")
    await store.drop_lease("d")
    assert not await store.has_lease("d")


async def test_messages_are_read_in_batches_and_announced(store: Store) -> None:
    heard: list[int] = []
    listening = await store.listen("j", heard.append)
    subject = subjects.job_outcomes("p", "j")
    seqs = [await store.append(subject, bytes([n])) for n in range(10)]
    await store.append(subjects.job_outcomes("p", "other"), b"x")
    found = await store.fetch("OUTCOMES", subject, 0, messages=4)
    assert [(s.seq, s.data) for s in found] == [(seqs[n], bytes([n])) for n in range(4)]
    found = await store.fetch("OUTCOMES", subject, seqs[3])
    assert [s.data for s in found] == [bytes([n]) for n in range(4, 10)]
    assert await store.fetch("OUTCOMES", subject, seqs[-1]) == []
    assert (await store.size("OUTCOMES", subject))[0] == 10
    assert await store.last_outcome() == seqs[-1] + 1
    assert heard == seqs
    await listening.unsubscribe()
    assert await store.jobs_in("OUTCOMES") == {"j", "other"}
    await store.remove("j")
    assert await store.jobs_in("OUTCOMES") == {"other"}


def test_a_broker_that_is_back_soon_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RETRY_FOR", 3.0)

    async def scenario() -> None:
        connection = MemoryBroker().connect()
        store = Store(connection, "p")
        await streams.ensure(connection, store, JobSettings())
        seq = await store.write(RECORD, 0)
        connection.lose()
        reading = asyncio.ensure_future(store.read("j"))
        await asyncio.sleep(1)
        connection.restore()
        assert await reading == (RECORD, seq)
        connection.lose()
        with pytest.raises(BrokerUnreachable):
            await store.read("j")

    run(scenario())


async def test_records_are_watched(store: Store) -> None:
    seen: list[Any] = []
    came = asyncio.Event()

    async def on_stored(message: Any) -> None:
        seen.append(message)
        came.set()

    await store.watch(on_stored)
    await store.write(RECORD, 0)
    await asyncio.wait_for(came.wait(), PATIENCE)
    assert b'"id":"j"' in bytes(seen[0].data)
