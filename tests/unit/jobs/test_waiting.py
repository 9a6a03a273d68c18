"""A job that cannot go on says so and for what, and counts as backlog all the while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from fake_jobs import FakeJobs
from jetmap.cli.app import build
from jetmap.client.job import JobStatus
from jetmap.dispatch.costs import Cost, Cutting
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.ledger import Ledger
from jetmap.dispatch.open_map import MapSpec, Memory, OpenMap
from jetmap.dispatch.sources import RawItems
from jetmap.jobs.catalogue import Catalogue
from jetmap.jobs.record import Record
from jetmap.jobs.transitions import as_running, as_waiting
from jetmap.settings import Settings
from jetmap_api.jobdocuments import describe

pytestmark = pytest.mark.anyio

NEW = Record(id="j", function="f", format="json", state="running", total=100, created=900.0)


# The record


def test_a_job_that_waits_from_the_start() -> None:
    waiting = as_waiting(NEW, "workers", "no worker has 'f'", 1000.0)
    assert (waiting.public_state, waiting.waiting_for) == ("waiting", "workers")
    assert (waiting.started, waiting.rate, waiting.seconds_left) == (None, None, None)
    going = as_running(waiting, 1500.0)
    assert (going.public_state, going.waiting_for, going.reason) == ("running", None, None)
    assert (going.started, going.waited) == (1500.0, 0.0)


def test_time_spent_waiting_is_not_in_the_rate() -> None:
    begun = as_running(NEW, 1000.0)
    half = msgspec.structs.replace(begun, done=50, updated=1010.0)
    assert (half.rate, half.seconds_left) == (5.0, 10.0)
    waiting = as_waiting(half, "workers", "they left", 1010.0)
    later = as_waiting(waiting, "workers", "they cannot start", 1900.0)
    assert (later.rate, later.seconds_left) == (5.0, None)
    assert (later.waiting_since, later.reason) == (1010.0, "they cannot start")
    again = msgspec.structs.replace(as_running(later, 2010.0), done=75, updated=2015.0)
    assert (again.rate, again.seconds_left, again.waited) == (5.0, 5.0, 1000.0)


def test_a_record_of_a_version_that_knows_of_no_waiting() -> None:
    """Earlier versions see it as running, and adopt it; ours reads theirs."""
    encoded = msgspec.json.encode(as_waiting(NEW, "workers", "none", 1000.0))
    assert msgspec.json.decode(encoded)["state"] == "running"
    old = msgspec.json.decode(msgspec.json.encode(NEW), type=Record)
    assert (old.public_state, old.waiting_for) == ("running", None)


def test_every_view_shows_it() -> None:
    record = as_waiting(NEW, "workers", "no worker has 'f'", 1000.0)
    document = describe({"root_path": ""}, record).model_dump()
    status = JobStatus.of(record)
    for name, value in {
        "state": "waiting",
        "waiting_for": "workers",
        "reason": "no worker has 'f'",
        "seconds_left": None,
    }.items():
        assert document[name] == value == getattr(status, name)
    catalogue = Catalogue(lambda record: None)
    catalogue.on_record(record, 1)
    assert catalogue.page(["waiting"], None, 10, None)[0] == [record]
    assert catalogue.page(["running"], None, 10, None)[0] == []


def test_the_command_line_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeJobs()
    fake.add("j", 3, waiting_for="workers", reason="no worker has 'double'")

    class Attached:
        jobs = fake

        async def __aenter__(self) -> Attached:
            return self

        async def __aexit__(self, *exc: object) -> None:
            pass

        def job(self, id: str) -> Any:
            async def status() -> JobStatus:
                return JobStatus.of(await fake.get(id))

            return SimpleNamespace(status=status)

    def attached(settings: Settings) -> Any:
        return Attached()

    shown = {}
    for command in (["jobs"], ["job", "j"], ["jobs", "--state", "waiting"]):
        monkeypatch.setattr(f"jetmap.cli.{command[0]}.attached", attached)
        shown[" ".join(command)] = CliRunner().invoke(build(command), command).stdout
    assert "waiting for workers" in shown["jobs"]
    assert "waiting for workers" in shown["jobs --state waiting"]
    assert "waiting: no worker has 'double'" in shown["job j"]


# The backlog


def a_map(source: Any) -> OpenMap:
    return OpenMap(
        "m",
        MapSpec(function="f", format="json"),
        source,
        Ledger("json", 2),
        Cost(),
        max_buffer=1 << 20,
        memory=Memory(1 << 30),
    )


def test_what_waits_is_never_nothing() -> None:
    cutting = Cutting(seconds=0.05)
    cost = Cost()
    assert cutting.estimate(cost) == 0.05
    cost.learn(10, 20.0, 100)
    assert cutting.estimate(cost) == 2.0


async def test_items_that_wait() -> None:
    items = a_map(RawItems([b"1", b"2", b"3", b"4"], "json"))
    assert items.backlog_items(has_workers=True) == 4
    taken = items.source.take(3, 1000)
    assert taken is not None
    flight = items.ledger.send(taken, "o", 1.0)
    assert items.backlog_items(has_workers=True) == 1
    assert items.backlog_items(has_workers=False) == 4  # Nobody computes what is out.
    items.ledger.withdraw(flight, {})
    assert items.backlog_items(has_workers=True) == 4  # It waits to be sent again.
    feed = ItemFeed("json")
    arriving = a_map(feed)
    assert arriving.backlog_items(has_workers=True) == 0
    await feed.put([b"1", b"2"])
    assert arriving.backlog_items(has_workers=True) == 1  # How many more come is unknown.
