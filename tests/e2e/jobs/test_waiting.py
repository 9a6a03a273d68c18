"""A job that cannot go on says so and for what, and counts as backlog all the while."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from typer.testing import CliRunner

from fake_jobs import FakeJobs
from jetmap import Cluster
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
from real_jobs import submit, until_over
from servers import Site, site
from waiting import wait_for, wait_until

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


# For real


@pytest.fixture
async def place(tmp_path: Path) -> Any:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


async def test_from_zero_and_back_to_zero(place: Site) -> None:
    cluster = await place.cluster()
    other = await place.cluster()

    async def waits(job: str) -> Record | None:
        record = await other.jobs.get(job)
        return record if record.public_state == "waiting" else None

    agent = await place.agent(cluster)
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent has left", 20)
    await wait_until(lambda: not cluster.workers, "it has said so")
    job = await submit(cluster, "odd_only", [1, 3, 5])
    record = cast(Record, await wait_for(lambda: waits(job.id), "it waits"))
    assert (record.waiting_for, record.started, record.seconds_left) == ("workers", None, None)
    assert "'odd_only'" in str(record.reason)
    await wait_until(lambda: cluster.stats.backlog_items == 3, "three items are backlog")
    assert cluster.stats.backlog_seconds > 0 and other.stats.backlog_items == 0

    await place.agent(cluster)
    done = await until_over(cluster, job.id)
    assert (done.state, done.waiting_for, done.reason) == ("succeeded", None, None)
    await wait_until(lambda: cluster.stats.backlog_items == 0, "nothing waits")


async def test_workers_that_leave_a_running_job(place: Site, tmp_path: Path) -> None:
    """Killed, so that nobody says goodbye."""
    cluster = await place.cluster()
    agent = await place.agent(cluster)
    log = tmp_path / "log"
    items = [(n, 30.0) for n in range(4)]
    job = await submit(cluster, "logged", items, {"log": str(log)})
    await wait_until(log.exists, "it runs", 20)
    assert (await cluster.jobs.get(job.id)).public_state == "running"
    agent.kill_host()

    async def waits() -> bool:
        return (await cluster.jobs.get(job.id)).public_state == "waiting"

    await wait_for(waits, "it waits", 30)
    await wait_until(lambda: cluster.stats.backlog_items == 4, "what was out waits, too")
    await place.agent(cluster)

    async def runs() -> bool:
        return (await cluster.jobs.get(job.id)).public_state == "running"

    await wait_for(runs, "it goes on", 30)
    await cluster.jobs.cancel(job.id)


async def test_workers_that_cannot_start(place: Site) -> None:
    cluster: Cluster = await place.cluster()
    agent = await place.agent(cluster)
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent has left", 20)
    broken = place.place / "broken_tasks.py"
    broken.write_text("import no_such_module\n")
    place.start_agent(str(broken), "--reload")
    await wait_until(lambda: any(p.failure for p in cluster.workers), "it cannot start", 30)
    job = await submit(cluster, "odd_only", [1])

    async def waits() -> Record | None:
        record = await cluster.jobs.get(job.id)
        return record if record.public_state == "waiting" else None

    record = cast(Record, await wait_for(waits, "it waits"))
    assert "no_such_module" in str(record.reason)
    await asyncio.wait_for(cluster.jobs.cancel(job.id), 20)
