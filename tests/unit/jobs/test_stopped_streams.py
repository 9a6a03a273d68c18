"""A stream that a full disk has stopped: asked about, not waited for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetmap.errors import BrokerUnreachable, NoRoom
from jetmap.jobs import monitor
from jetmap.jobs.catalogue import Catalogue
from jetmap.jobs.filler import Filler
from jetmap.jobs.record import Record
from jetmap.jobs.removal import Removal
from jetmap.jobs.store import Store
from jetmap.nats.answers import JetStreamError
from jetmap.nats.errors import Forbidden, NoResponders
from jetmap.nats.jetstream import NO_SUBJECT
from jetmap.wire import subjects
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

NO_ROOM = b'{"error": {"code": 503, "err_code": 10023, "description": "insufficient resources"}}'
STOPPED = JetStreamError(500, 10051, "write /x/1.blk: no space left on device")
RECORD = Record(id="j", function="f", format="json", state="running")


class Broker:
    """stopped: streams that a full disk has stopped. away: nothing answers at all."""

    def __init__(self, *stopped: str) -> None:
        self.stopped = {subjects.job_stream("p", kind) for kind in stopped}
        self.away: Exception | None = None
        self.writes: list[str] = []
        self.purged: list[str] = []
        self.may_purge = True
        self.limit = -1  # Bytes of each stream; 100,000 are taken.
        self.is_full = False  # The room that purges free is taken by others at once.

    async def request(
        self, subject: str, data: bytes = b"", timeout: float = 5, headers: Any = None
    ) -> bytes:
        if self.away is not None:
            raise self.away
        self.writes.append(subject)
        if subjects.job_stream("p", subjects.kind_of(subject)) in self.stopped:
            raise BrokerUnreachable("no answer in time")
        if self.is_full:
            return NO_ROOM
        return b'{"seq": 5}'

    async def api(self, call: str, request: Any = None) -> dict[str, Any]:
        if self.away is not None:
            raise self.away
        if call == "INFO":
            return {"storage": 10, "limits": {"max_storage": 100}}
        stream = call.rsplit(".", 1)[1]
        if call.startswith("STREAM.PURGE."):
            if not self.may_purge:
                raise Forbidden("not allowed")
            if stream in self.stopped:
                raise STOPPED
            if (request or {}).get("filter") == NO_SUBJECT:
                return {"purged": 0}
            self.purged.append(stream)
            return {"purged": 1}
        config = {"max_bytes": self.limit}
        return {"config": config, "state": {"messages": 16, "bytes": 100_000}}


def store(broker: Broker) -> Store:
    return Store(cast(Any, broker), "p")


async def test_a_write_without_an_answer_is_refused_for_want_of_room() -> None:
    broker = Broker("INPUT")
    there = store(broker)
    for _ in range(3):
        with pytest.raises(NoRoom, match=r"jetmap up.*any other NATS"):
            await there.append(subjects.job_input("p", "j"), b"x")
    assert len(broker.writes) == 1  # Then the stream is asked first.
    assert there.takes_records
    broker.stopped.clear()
    assert await there.append(subjects.job_input("p", "j"), b"x") == 5


async def test_records_that_cannot_be_written() -> None:
    broker = Broker("JOBS", "SPARE")
    there = store(broker)
    with pytest.raises(NoRoom):
        await there.write(RECORD, 0)
    assert not there.takes_records
    broker.stopped.clear()
    assert await there.write(RECORD, 0) == 5
    assert there.takes_records


async def test_a_record_whose_room_was_taken_by_outcomes() -> None:
    broker = Broker()
    broker.is_full = True
    there = store(broker)
    for _ in range(2):
        with pytest.raises(NoRoom):
            await there.write(RECORD, 0)
        assert len(broker.purged) and not there.takes_records
    broker.is_full = False
    assert await there.write(RECORD, 0) == 5
    assert there.takes_records


@pytest.mark.parametrize("may_purge", [True, False])
async def test_a_broker_that_is_away_is_not_full(
    monkeypatch: pytest.MonkeyPatch, may_purge: bool
) -> None:
    monkeypatch.setattr("jetmap.jobs.store.RETRY_FOR", 0.0)
    for error in (BrokerUnreachable("away"), NoResponders("away")):
        broker = Broker()
        broker.away, broker.may_purge = error, may_purge
        with pytest.raises(BrokerUnreachable):
            await store(broker).write(RECORD, 0)


async def test_whether_there_is_room_for_outcomes() -> None:
    assert await Filler(cast(Any, Broker()), "p").probe_room()
    assert not await Filler(cast(Any, Broker("OUTCOMES")), "p").probe_room()
    assert not await Filler(cast(Any, Broker("SPARE")), "p").probe_room()


async def test_removing_says_why_it_cannot() -> None:
    removal = Removal(store(Broker("JOBS", "SPARE")), Catalogue(lambda record: None))
    with pytest.raises(NoRoom):
        await removal.tombstone(RECORD, 3)


async def test_a_removed_job_stays_removed_where_its_outcomes_cannot_be() -> None:
    broker = Broker("OUTCOMES")
    catalogue = Catalogue(lambda record: None)
    assert await Removal(store(broker), catalogue).tombstone(RECORD, 3)
    assert [r.state for r in catalogue] == ["deleted"]


async def test_the_input_of_a_job_that_is_over_may_stay() -> None:
    await store(Broker("INPUT")).remove_input(RECORD)  # The job's end must not fail for it.


@pytest.mark.parametrize(("limit", "has_room"), [(-1, True), (1 << 20, True), (110_000, False)])
async def test_the_limit_of_one_stream(limit: int, has_room: bool) -> None:
    broker = Broker()
    broker.limit = limit
    assert await Filler(cast(Any, broker), "p").probe_room() is has_room


async def test_a_lease_without_room_keeps_no_sweep_from_making_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jobs that expire while the store is full make room."""
    swept = asyncio.Event()
    watcher = monitor.JobMonitor(
        store(Broker("JOBS", "SPARE")),
        "me",
        Catalogue(lambda record: None),
        cast(Any, SimpleNamespace(is_busy=True, adopt=lambda alive: None)),
        cast(Any, None),
    )
    watcher.is_loaded = True
    monkeypatch.setattr(monitor, "SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "JOB_BEAT_SECONDS", 0.01)

    async def nothing(*_: Any) -> None: ...

    async def sweep() -> None:
        swept.set()

    monkeypatch.setattr(watcher, "catch_up", nothing)
    monkeypatch.setattr(watcher, "_look_for_orphans", nothing)
    monkeypatch.setattr(watcher, "_sweep", sweep)
    watcher.background.spawn(watcher._beat(), "watch owners")
    await asyncio.wait_for(swept.wait(), PATIENCE)
    await watcher.background.close()
