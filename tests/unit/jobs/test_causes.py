"""The causes of a job's failures, as the store has them when nobody announces them any more."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.jobs import causes as module
from jetmap.jobs import streams
from jetmap.jobs.causes import StoredCauses, stored_causes
from jetmap.jobs.outcomes import StoredOutcomes
from jetmap.jobs.record import Record
from jetmap.jobs.store import Store
from jetmap.nats.clock import ManualClock
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import JobSettings
from jetmap.wire.messages import ErrorRecord, Final, Report
from stored_outcomes import JOB, POOL, append

pytestmark = pytest.mark.anyio

RECORD = Record(id=JOB, function="f", format="json", state="failed", total=100)


class Kept:
    """A job's store, whose clock the test turns."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        connection = MemoryBroker(clock=self.clock).connect()
        self.connection, self.store = connection, Store(connection, POOL)

    async def fail(self, start: int, *errors: ErrorRecord, count: int = 10) -> None:
        """Store a message of ``count`` outcomes, and let a minute pass."""
        values = msgspec.json.encode([None] * count)
        report = Report("m", start, 0, start, count, values, [*errors], 0.5, Final(start + count))
        await append(self.store, report)
        self.clock.advance(60.0)

    async def causes(self) -> StoredCauses:
        return await stored_causes(self.store, StoredOutcomes(self.store, JOB, "json"), RECORD)


@pytest.fixture
async def kept() -> Kept:
    made = Kept()
    await streams.ensure(made.connection, made.store, JobSettings())
    return made


async def test_a_cause_has_its_count_its_times_and_its_first_traceback(kept: Kept) -> None:
    lost = {"host": "web-1"}
    await kept.fail(20, ErrorRecord(25, "raised", "ValueError", "page 25", "the first"))
    await kept.fail(
        0,
        ErrorRecord(3, "raised", "ValueError", "page 3", "a later one"),
        ErrorRecord(4, "lost", "WorkerLost", "its worker died", None, lost),
    )
    await kept.fail(40, ErrorRecord(41, "raised", "ValueError", "page 41", "the last"))
    found = await kept.causes()
    assert not found.more
    page, worker = found.causes
    activity = page.activity
    assert (activity.count, activity.indexes, activity.job) == (3, [25, 3, 41], JOB)
    assert (activity.first, activity.last) == (180.0, 60.0), "by the broker's clock"
    assert (activity.message, page.traceback) == ("page 25", "the first")
    assert (worker.activity.kind, worker.activity.hosts) == ("lost", ["web-1"])
    assert worker.traceback is None and worker.activity.first == 120.0


async def test_only_some_are_read_and_says_so(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FAILURES", 3)
    monkeypatch.setattr(module, "MOST_CAUSES", 1)
    errors = [ErrorRecord(n, "raised", f"E{n % 2}", "no") for n in range(5)]
    await kept.fail(0, *errors)
    found = await kept.causes()
    assert found.more and [c.activity.count for c in found.causes] == [2]


async def test_a_job_without_failures_has_no_causes(kept: Kept) -> None:
    await kept.fail(0)
    assert await kept.causes() == StoredCauses([], False)
