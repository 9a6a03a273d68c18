"""Outcomes for tests of a job's store, and what must be read of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from jetmap.dispatch.outcomes import Batch
from jetmap.errors import BrokerUnreachable
from jetmap.jobs.store import Store, StoredMessage
from jetmap.wire import subjects
from jetmap.wire.messages import ErrorRecord, Final, Format, Report, encode

POOL = "default"
JOB = "job"
SUBJECT = subjects.job_outcomes(POOL, JOB)


class CountingStore(Store):
    """fetches, messages: so far. shown: the highest number that its replica has yet."""

    fetches = 0
    messages = 0
    shown: int | None = None
    away = 0
    late: Callable[[], None] | None = None

    async def fetch(self, *args: Any, **options: Any) -> list[StoredMessage]:
        if self.away:
            self.away -= 1
            raise BrokerUnreachable("away")
        found = await super().fetch(*args, **options)
        if self.shown is not None:
            found = [stored for stored in found if stored.seq <= self.shown]
        self.fetches += 1
        self.messages += len(found)
        return found

    async def size(self, kind: str, subject: str) -> tuple[int, int]:
        found = await super().size(kind, subject)
        if self.late is not None:
            self.late()
        return found


def report(
    start: int, count: int, who: str = "a", failing: Iterable[int] = (), format: Format = "json"
) -> Report:
    """Item i has the value [who, i], or fails with who as the message."""
    failing = set(failing)
    values = [None if i in failing else [who, i] for i in range(start, start + count)]
    encoded = msgspec.json.encode(values) if format == "json" else msgspec.msgpack.encode(values)
    errors = [ErrorRecord(i, "raised", "ValueError", who) for i in sorted(failing)]
    return Report("m", start, 0, start, count, encoded, errors, 0.5, Final(start + count))


async def append(store: Store, *reports: Report) -> list[int]:
    return [await store.append(SUBJECT, encode(each)) for each in reports]


def opened(batches: Iterable[Batch], format: Format = "json") -> list[tuple[int, str]]:
    """(item, who), with a '!' for an error."""
    found: list[tuple[int, str]] = []
    decode = msgspec.json.decode if format == "json" else msgspec.msgpack.decode
    for batch in batches:
        values = decode(batch.values)
        errors = {e.index: e.message for e in batch.errors}
        assert len(values) == batch.count
        assert len(errors) == len(batch.errors)
        for item, value in enumerate(values, batch.start):
            if value is None:
                found.append((item, errors.pop(item) + "!"))
            else:
                assert value[1] == item
                found.append((item, value[0]))
        assert not errors
    return found


def first_wins(reports: Iterable[Report]) -> dict[int, str]:
    model: dict[int, str] = {}
    for each in reports:
        for item, who in opened([Batch(each.start, each.count, each.values, each.errors)]):
            model.setdefault(item, who)
    return model


def overlapping(seed: int, items: int = 300, messages: int = 90) -> list[Report]:
    """Reports that two owners with different cuts may store, some twice, until all is covered."""
    rng = random.Random(seed)
    reports: list[Report] = []
    for number in range(messages):
        start = rng.randrange(items)
        count = rng.randrange(min(30, items - start + 1))
        failing = [i for i in range(start, start + count) if rng.random() < 0.1]
        reports.append(report(start, count, f"r{number}", failing))
        if rng.random() < 0.1:
            reports.append(rng.choice(reports))
    return [*reports, report(0, items, "last", range(5))]
