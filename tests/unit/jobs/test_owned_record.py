"""The record of a job that runs here: what others wrote meanwhile decides what happens."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from jetmap.jobs import transitions
from jetmap.jobs.catalogue import Catalogue
from jetmap.jobs.owned_record import OvertakenError, OwnedRecord
from jetmap.jobs.record import Record
from jetmap.jobs.store import Conflict, Store
from virtual_time import run

replace = msgspec.structs.replace

OURS = Record(id="j", function="f", format="json", state="running", owner="me", epoch=2)


class OneRecord:
    """A store of one record. lost: answers to writes that do not arrive."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.seq = 10
        self.lost = 0

    async def read(self, id: str) -> tuple[Record, int]:
        return self.record, self.seq

    async def write(self, record: Record, after: int, *, ttl: float | None = None) -> int:
        if after != self.seq:
            raise Conflict
        self.record, self.seq = record, self.seq + 1
        if self.lost:
            self.lost -= 1
            raise Conflict  # As the broker answers the repetition of a write.
        return self.seq


class Bench:
    """A record of the test's store, and how often it may have been steered."""

    def __init__(self) -> None:
        self.steered = 0
        self.store = OneRecord(OURS)
        self.owned = OwnedRecord(
            OURS,
            "me",
            cast(Store, self.store),
            Catalogue(lambda record: None),
            on_steered=self._on_steered,
        )

    def _on_steered(self) -> None:
        self.steered += 1

    async def write(self, **facts: Any) -> int:
        return await self.owned.write(replace(self.owned.current, **facts))


def test_writes_follow_each_other() -> None:
    async def test() -> None:
        bench = Bench()
        assert await bench.owned.write(OURS, 10) == 11
        assert await bench.write(done=3) == 12
        assert bench.owned.current.done == bench.store.record.done == 3

    run(test())


def test_a_write_whose_answer_was_lost_is_repeated() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.lost = 1
        assert await bench.owned.write(replace(OURS, done=3), 10) == 12
        assert bench.store.record.done == 3

    run(test())


def test_what_people_want_meanwhile_is_kept_by_the_next_write() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.owned.write(OURS, 10)
        steered = transitions.steered(
            OURS, {"paused": True, "labels": {"a": "1"}, "max_failed": "4"}
        )
        await bench.store.write(steered, 11)
        await bench.write(done=3)
        for record in (bench.store.record, bench.owned.current):
            assert (record.done, record.paused, record.max_parallel) == (3, True, None)
            assert (record.labels, record.max_failed) == ({"a": "1"}, "4")

    run(test())


@pytest.mark.parametrize(
    "facts", [{"state": "cancelled"}, {"owner": "other"}, {"epoch": 3}, {"owner": ""}]
)
def test_a_job_on_which_somebody_else_decides_is_not_written(facts: dict[str, Any]) -> None:
    async def test() -> None:
        bench = Bench()
        await bench.owned.write(OURS, 10)
        there = replace(OURS, **facts)
        await bench.store.write(there, 11)
        with pytest.raises(Conflict):
            await bench.write(done=3)
        assert bench.store.record == there
        assert bench.owned.on_record(there), "it is to be stopped"

    run(test())


def test_the_end_of_a_job_is_decided_again_if_people_change_what_it_depends_on() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.owned.write(OURS, 10)
        await bench.store.write(replace(OURS, max_failed="0", paused=True), 11)
        with pytest.raises(OvertakenError):
            await bench.write(state="succeeded")
        assert (bench.store.record.state, bench.owned.current.state) == ("running", "running")
        assert (bench.owned.current.max_failed, bench.owned.current.paused) == ("0", True)
        await bench.store.write(replace(bench.store.record, labels={"a": "1"}), 12)
        await bench.write(state="failed", max_failed="0")
        assert bench.store.record.state == "failed" and bench.store.record.labels == {"a": "1"}

    run(test())


def test_news_of_an_own_write_are_no_news() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.owned.write(OURS, 10)
        before = bench.steered
        assert not bench.owned.on_record(OURS) and bench.steered == before
        paused = transitions.steered(OURS, {"paused": True})
        assert not bench.owned.on_record(paused) and bench.steered == before + 1
        assert bench.owned.current.paused

    run(test())
