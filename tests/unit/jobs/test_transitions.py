"""The changes of a job's record, in any order that can happen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.jobs import transitions
from jetmap.jobs.record import Record
from jetmap.jobs.transitions import ROOM, WORKERS

NEW = Record(
    id="j", function="f", format="json", owner="a", key="k", reserved=1000, created=1.0, ttl=60.0
)
QUEUED = transitions.queued(NEW, total=10, parts=1, size=100, digest="d", now=2.0)


class Life:
    """A job from its upload to its end, by events of its owners and callers."""

    def __init__(self) -> None:
        self.record = QUEUED
        self.now = 2.0
        self.done = 0

    def own(self, who: str = "b") -> None:
        self.record = transitions.owned(self.record, who)
        if not self.record.waiting_for:
            self.record = transitions.as_running(self.record, self.now)

    def release(self) -> None:
        self.record = transitions.released(self.record)

    def lack(self, what: str = WORKERS, why: str = "none") -> None:
        if self.record.state == "running":
            shown = transitions.shown_waiting(self.record, what, why, self.now)
            self.record = shown or self.record

    def lack_room(self) -> None:
        self.lack(ROOM, "full")

    def go_on(self) -> None:
        if self.record.state == "running":
            shown = transitions.shown_waiting(self.record, WORKERS, None, self.now)
            self.record = shown or self.record

    def progress(self) -> None:
        if self.record.state != "running" or self.record.waiting_for:
            return
        self.done = min(10, self.done + 3)
        self.record = transitions.progressed(
            self.record,
            done=self.done,
            failed=self.done // 5,
            stored=100 + 7 * self.done,
            reserved=max(self.record.reserved, 100 + 7 * self.done),
            elapsed=self.now,
            now=self.now,
        )


EVENTS: list[Callable[[Life], None]] = [
    Life.own,
    Life.release,
    Life.lack,
    Life.lack_room,
    Life.go_on,
    Life.progress,
]


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 100)), max_size=40), st.booleans())
@examples(200)
def test_a_life_in_any_order(events: list[tuple[Callable[[Life], None], float]], cut: bool) -> None:
    life = Life()
    for event, seconds in events:
        before = life.record
        life.now += seconds
        event(life)
        record = life.record
        assert record.epoch == before.epoch + (event is Life.own)
        assert not record.is_over and record.state in ("queued", "running")
        assert record.waited >= before.waited and record.done >= before.done
        assert record.updated >= before.updated
        if record.started is not None:
            assert record.started >= 2.0 and record.waited <= life.now - record.started + 1e-6
        waits = record.waiting_for is not None
        assert record.public_state == ("waiting" if waits else record.state)
        assert (record.reason is not None) == waits
        assert record.rate is None or record.rate > 0
        assert record.claimed == 0

    if cut:
        over = transitions.cancelled(life.record, life.now)
        assert (over.state, over.reason) == ("cancelled", None)
    else:
        over = transitions.ended(
            life.record,
            "succeeded",
            None,
            done=10,
            failed=0,
            stored=life.record.stored + 50,
            now=life.now,
        )
        assert over.stored == life.record.stored + 50 - 100
    assert over.is_over and over.public_state == over.state
    assert (over.owner, over.waiting_for, over.claimed) == ("", None, 0)
    assert over.reserved == over.stored >= 0
    assert over.finished == over.updated == life.now and over.seconds_left == 0.0
    counted = transitions.counted(over, done=9, failed=2, stored=30)
    assert (counted.done, counted.failed, counted.stored, counted.reserved) == (9, 2, 30, 30)
    gone = transitions.deleted(counted, ttl=5.0, now=life.now)
    assert (gone.state, gone.ttl, gone.reserved, gone.kwargs) == ("deleted", 5.0, 0, b"")
    assert gone.key == "k"  # Its key is still to be removed.


def test_waiting_stops_the_clock_of_the_rate() -> None:
    running = transitions.as_running(transitions.owned(QUEUED, "b"), 10.0)
    waiting = transitions.as_waiting(running, WORKERS, "none", 20.0)
    longer = transitions.as_waiting(waiting, ROOM, "full", 30.0)
    assert longer.waiting_since == 20.0
    again = transitions.as_running(longer, 50.0)
    assert (again.started, again.waited, again.waiting_since) == (10.0, 30.0, 0.0)
    assert transitions.as_running(again, 60.0).waited == 30.0


def test_what_is_shown_already_is_not_written_again() -> None:
    running = transitions.owned(QUEUED, "b")
    first = transitions.shown_waiting(running, WORKERS, None, 5.0)
    assert first is not None and first.started == 5.0
    assert transitions.shown_waiting(first, WORKERS, None, 6.0) is None
    waiting = transitions.shown_waiting(first, WORKERS, "none", 7.0)
    assert waiting is not None and waiting.public_state == "waiting"
    assert transitions.shown_waiting(waiting, WORKERS, "none", 8.0) is None
    assert transitions.shown_waiting(waiting, ROOM, "none", 8.0) is not None
    assert transitions.shown_waiting(waiting, WORKERS, "they cannot start", 8.0) is not None


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"owner": ""}, True),
        ({"owner": "me"}, True),
        ({"owner": "other"}, False),
        ({"epoch": 1}, False),
        ({"state": "cancelled"}, False),
        ({"state": "uploading"}, False),
        ({"state": "running"}, True),
    ],
)
def test_a_job_is_taken_only_as_it_was_known(changes: dict[str, object], may: bool) -> None:
    record = transitions.replace(QUEUED, **changes)
    assert transitions.may_run(record, QUEUED, "me") is may


def test_a_new_owner_drops_what_the_last_one_claimed() -> None:
    claimed = transitions.replace(QUEUED, reserved=1500, claimed=500)
    owned = transitions.owned(claimed, "b")
    assert (owned.reserved, owned.claimed, owned.owner, owned.epoch) == (1000, 0, "b", 1)


def test_the_reason_of_a_timeout_says_how_far_it_came() -> None:
    record = transitions.replace(QUEUED, timeout=1.5, done=4)
    assert transitions.timeout_message(record) == (
        "the job did not end within its timeout of 1.5 s: 4 of 10 items were done when progress "
        "was last recorded"
    )
