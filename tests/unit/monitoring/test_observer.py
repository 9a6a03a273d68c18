"""A dispatcher's activity: its maps, its functions, its waits, in a bounded announcement."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec
import pytest

from dispatching import FUNCTION, Parts, report_of
from jetmap.dispatch.gate import Gate
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.jobs.record import Record
from jetmap.monitoring.observer import (
    ENDED_SECONDS,
    MOST_ENDED,
    Identity,
    Observer,
    fitted,
)
from jetmap.wire.activity import FailureActivity, MapActivity, read_activity
from jetmap.wire.controls import FunctionControl
from jetmap.wire.messages import ANNOUNCEMENT_BYTES, ErrorRecord


class Watched(Parts):
    """The parts of a dispatcher, an observer of them, and a clock that the test turns."""

    def __init__(self, cores: int = 2, jobs: Iterable[Record] = ()) -> None:
        super().__init__(cores)
        self.now = 100.0
        self.jobs = list(jobs)
        self.observer = Observer(
            Identity("d", "p", "inbox.d", "test on here", "here", 1),
            self.maps,
            self.scheduler,
            self.roster,
            self.stats,
            lambda: self.now,
            lambda: self.jobs,
        )

    def begin(self, items: int, id: str = "") -> MapActivity:
        run = self.open(items, id)
        run.opened = self.now
        return self.observer.activity().maps[-1]

    def work(self, seconds: float = 0.001, *, errors: int = 0) -> None:
        """Send what may be sent, and answer it two seconds later."""
        sent = self.send(self.now)
        self.now += 2.0
        for run, flight in sent:
            index = flight.piece.start
            failed = [ErrorRecord(index, "raised", "ValueError", "no", "trace")] if errors else []
            errors -= bool(failed)
            answer = report_of(run, flight, seconds * flight.piece.count, errors=failed)
            self.maps.accept(answer, 0, self.now, "a")


def test_a_map_has_its_progress_its_rate_and_its_time_left() -> None:
    parts = Watched()
    waiting = parts.begin(1000)
    assert (waiting.state, waiting.waits, waiting.done, waiting.rate) == ("waiting", "cores", 0, 0)
    assert waiting.left is None
    for _ in range(3):
        parts.work(seconds=0.05)
        [running] = parts.observer.activity().maps
    assert running.state == "running" and running.kind == "map" and running.age == 6.0
    assert running.rate == pytest.approx(running.done / 6)
    assert running.left == pytest.approx((1000 - running.done) / running.rate)
    assert running.cores > 0, "its chunks computed"
    details = parts.observer.details(running.id)
    assert details is not None and details.compute == pytest.approx(0.05 * running.done, rel=0.2)


def test_a_map_says_what_it_waits_for() -> None:
    parts = Watched(cores=2)
    run = parts.open(1000)
    run.opened = parts.now

    def waits() -> str:
        return parts.observer.activity().maps[0].waits

    assert waits() == "cores"
    run.restrict(1)
    parts.send(parts.now)
    assert waits() == "a limit"
    run.pause()
    assert waits() == "a pause" and parts.observer.activity().maps[0].state == "paused"
    run.resume()
    run.restrict(None)
    run.gate = Gate("f")
    run.gate.control = FunctionControl(max_parallel=1)
    assert waits() == "a limit of its function"
    run.gate.control = FunctionControl(paused=True)
    assert waits() == "a pause of its function"
    assert parts.observer.activity().maps[0].state == "paused"
    run.gate.pool_paused = True
    assert waits() == "a pause of the pool"
    run.gate = None
    run.max_buffer = 0
    assert waits() == "its reader"
    run.max_buffer = 1 << 20
    parts.roster.expire(parts.now + 1_000)
    assert waits() == "workers" and parts.observer.activity().maps[0].state == "waiting"


def test_a_map_is_announced_with_its_labels_and_its_limit() -> None:
    parts = Watched()
    run = parts.open(8)
    run.spec = msgspec.structs.replace(run.spec, labels={"customer": "7"})
    run.restrict(1)
    parts.send(parts.now)
    (found,) = parts.observer.activity().maps
    assert (found.labels, found.limit, found.waits) == ({"customer": "7"}, 1, "a limit")
    assert len(run.ledger.flights) == 1


def test_a_map_whose_body_arrives_waits_for_its_input() -> None:
    parts = Watched()
    parts.open(ItemFeed("json"))
    assert parts.observer.activity().maps[0].waits == "its input"


def test_ended_maps_stay_for_a_while_if_they_were_worth_it() -> None:
    parts = Watched()
    parts.begin(1)
    parts.work()
    assert parts.observer.activity().maps == [], "short and well: only counted"
    parts.begin(1)
    parts.work(errors=1)
    [ended] = parts.observer.activity().maps
    assert (ended.state, ended.outcome, ended.failed, ended.seconds) == ("ended", "failed", 1, 2.0)
    parts.now += 30
    assert parts.observer.activity().maps[0].ended == 30.0
    parts.now += ENDED_SECONDS
    assert parts.observer.activity().maps == []


def test_a_map_of_one_chunk_has_its_failures_while_it_runs_and_after_its_end() -> None:
    parts = Watched()
    id = parts.begin(1).id
    found = parts.observer.details(id)
    assert found is not None and found.failures == []
    parts.work(errors=1)
    found = parts.observer.details(id)
    assert found is not None and [(g.type, g.count) for g in found.failures] == [("ValueError", 1)]


def test_a_hundred_thousand_maps_an_hour_leave_a_bounded_trace() -> None:
    parts = Watched()
    for _ in range(MOST_ENDED + 50):
        parts.open(1)
        for run, flight in parts.send(parts.now):
            error = ErrorRecord(0, "raised", "E", "no")
            parts.maps.accept(report_of(run, flight, errors=[error]), 0, parts.now)
    activity = parts.observer.activity()
    assert len(activity.maps) == MOST_ENDED
    assert activity.failures[0].count == MOST_ENDED + 50


def test_jobs_that_wait_are_there_too_and_count_as_backlog() -> None:
    job = Record(
        id="j1", function="other", format="json", state="queued", total=70, done=20, max_parallel=2
    )
    parts = Watched(jobs=[job])
    activity = parts.observer.activity()
    [row] = activity.maps
    assert row.limit == 2
    assert (row.id, row.kind, row.state, row.waits, row.total) == (
        "j1", "job", "waiting", "workers", 70
    )  # fmt: skip
    assert (activity.waiting, activity.unknown) == (50, 50) and activity.waiting_seconds > 0


def test_the_oldest_wait_is_of_a_chunk_or_of_what_has_not_begun() -> None:
    job = Record(id="j1", function="other", format="json", state="queued", total=70)
    parts = Watched(jobs=[job])
    parts.begin(1000)
    parts.now += 30.0
    waiting, parked = parts.observer.activity().maps
    assert (waiting.state, waiting.oldest, waiting.age) == ("waiting", 30.0, 30.0)
    assert (parked.oldest, parked.age) == (30.0, 30.0), "since it was seen first"
    parts.work()
    parts.send(parts.now)
    parts.now += 7.0
    running, parked = parts.observer.activity().maps
    assert (running.state, running.oldest) == ("running", 7.0)
    assert (parked.oldest, parked.age) == (39.0, 39.0)
    parts.jobs[:] = [msgspec.structs.replace(job, paused=True)]
    parked = parts.observer.activity().maps[1]
    assert (parked.oldest, parked.age) == (0.0, 39.0), "a pause is no wait"


def test_a_jobs_map_goes_by_the_jobs_id() -> None:
    parts = Watched()
    row = parts.begin(10, "=j7=3")
    assert (row.id, row.kind) == ("j7", "job")
    assert parts.observer.find("j7") is not None
    assert parts.observer.details("j7") is not None
    assert parts.observer.details("j8") is None


def test_functions_have_their_cost_and_their_errors() -> None:
    parts = Watched()
    parts.begin(50)
    for _ in range(4):
        parts.work(seconds=0.01, errors=1)
    [function] = parts.observer.activity().functions
    assert function.name == FUNCTION and function.items > 0 and function.failed == 4
    assert sum(function.bins.values()) == function.items
    assert function.seconds == pytest.approx(0.01 * function.items, rel=0.01)


def test_waits_and_refusals_are_those_of_the_last_minute() -> None:
    parts = Watched()
    parts.begin(4)
    parts.work()
    parts.stats.maps_refused["no-workers"] += 3
    activity = parts.observer.activity()
    assert sum(activity.express.values()) > 0 and activity.refused == {"no-workers": 3}
    for _ in range(31):
        parts.now += 2
        activity = parts.observer.activity()
    assert activity.express == {} and activity.refused == {}


def test_an_announcement_stays_under_its_limit_and_says_what_it_left_out() -> None:
    parts = Watched()
    rnd = random.Random(1)
    for number in range(2_000):
        run = parts.open(rnd.randrange(1, 1_000), f"map-{number:06}-{'x' * 40}")
        run.opened = parts.now
    activity = parts.observer.activity()
    activity.failures = [
        FailureActivity(f"k{n}", "f", "raised", "E", "m" * 200, 1, 1.0, 1.0, [0] * 30)
        for n in range(50)
    ]
    totals = sum(m.total or 0 for m in activity.maps)
    data = fitted(activity)
    read = read_activity(data)
    assert len(data) <= ANNOUNCEMENT_BYTES
    assert len(read.maps) + read.more == 2_000 and read.more > 0
    assert sum(m.total or 0 for m in read.maps) + read.more_total == totals
    assert min(m.total or 0 for m in read.maps) > 100, "the largest are listed"
    small = fitted(parts.observer.activity(), 2_000)
    assert len(small) <= 2_000 and read_activity(small).more > 1_900
