"""The backlog: what is out does not wait, and what waits outside of open maps does."""

from __future__ import annotations

import pytest

from dispatching import FUNCTION, Parts, presence
from jetmap.dispatch.backlog import Backlog


def test_items_of_maps_and_of_parked_work_are_counted_and_weighed() -> None:
    parts = Parts()
    backlog = Backlog(parts.maps, parts.scheduler, parts.roster)
    backlog.measure(parts.stats)
    assert (parts.stats.in_flight, parts.stats.backlog_items) == (0, 0)
    parts.scheduler.cost(FUNCTION).learn(10, 20.0, 100)
    parts.open(3)
    backlog.parked = lambda: [(FUNCTION, 5)]
    backlog.measure(parts.stats)
    assert (parts.stats.in_flight, parts.stats.backlog_items) == (0, 8)
    assert parts.stats.backlog_seconds == pytest.approx(16.0), "two seconds each"


def test_items_that_are_out_wait_only_if_nobody_computes_them() -> None:
    parts = Parts(cores=4)
    backlog = Backlog(parts.maps, parts.scheduler, parts.roster)
    parts.open(1)
    assert len(parts.send()) == 1
    backlog.measure(parts.stats)
    assert (parts.stats.in_flight, parts.stats.backlog_items) == (1, 0)
    parts.roster.on_presence(presence(gone=True), 1.0)
    backlog.measure(parts.stats)
    assert (parts.stats.in_flight, parts.stats.backlog_items) == (1, 1)
