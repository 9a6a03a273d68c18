"""A job that cannot go on says so and for what, and counts as backlog all the while."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jetmap.client.job_status import JobStatus
from jetmap.dispatch.costs import Cost, Cutting
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.ledger import Ledger
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.sources import RawItems
from jetmap.jobs.catalogue import Catalogue
from jetmap.jobs.record import Record
from jetmap.jobs.transitions import as_waiting
from jetmap_api.job_documents import describe

pytestmark = pytest.mark.anyio

NEW = Record(id="j", function="f", format="json", state="running", total=100, created=900.0)


# The record


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
