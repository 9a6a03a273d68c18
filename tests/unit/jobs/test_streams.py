"""The streams that hold jobs."""

from __future__ import annotations

import pytest

from jetmap.errors import TopologyMismatch
from jetmap.jobs import streams
from jetmap.jobs.record import Record
from jetmap.jobs.store import Store
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import JobSettings
from jetmap.wire import subjects

pytestmark = pytest.mark.anyio


async def test_they_are_made_when_they_are_needed_and_only_once() -> None:
    c = MemoryBroker().connect()
    store = Store(c, "p")
    assert await streams.last(c, "p") is None
    for _ in range(2):
        await streams.ensure(c, store, JobSettings())
    assert await streams.last(c, "p") == 0


async def test_an_existing_stream_must_be_as_jobs_need_it() -> None:
    c = MemoryBroker().connect()
    (wish, _), *_ = streams.wishes("p", JobSettings(), (1,))
    other = wish.config | {"storage": "file", "max_msgs_per_subject": 5, "num_replicas": 1}
    await c.api(f"STREAM.CREATE.{wish.config['name']}", other)
    with pytest.raises(TopologyMismatch, match="max_msgs_per_subject is 5, not 1"):
        await streams.ensure(c, Store(c, "p"), JobSettings())


def test_each_has_its_subjects_and_refuses_what_it_has_no_room_for() -> None:
    wishes = [wish.config for wish, _ in streams.wishes("p", JobSettings(), (3, 1))]
    subjects = [subject for config in wishes for subject in config["subjects"]]
    assert len(set(subjects)) == len(wishes) == 3
    # A record's next version replaces the last one; input and outcomes are never dropped.
    assert sorted(config["discard"] for config in wishes) == ["new", "new", "old"]


async def test_a_stream_that_was_removed_begins_behind_all_that_it_had() -> None:
    c = MemoryBroker().connect()
    store = Store(c, "p")
    await streams.ensure(c, store, JobSettings())
    subject = subjects.job_outcomes("p", "j")
    await store.write(Record(id="j", function="f", format="json"), 0)
    seqs = [await store.append(subject, b"x") for _ in range(3)]
    assert seqs == [1, 2, 3]
    await c.api("STREAM.DELETE.JETMAP_OUTCOMES_p")
    assert await store.size("OUTCOMES", subject) == (0, 0)
    await streams.ensure(c, store, JobSettings())
    later = await store.append(subject, b"y")
    assert later > 10**9
    assert [stored.seq for stored in await store.fetch("OUTCOMES", subject, 3)] == [later]
