"""Failures grouped by cause: one group whatever the numbers in its messages, kept for an hour."""

from __future__ import annotations

from jetmap.dispatch.failures import KEPT_SECONDS, MOST_GROUPS, Failures
from jetmap.wire.messages import ErrorRecord


class Clock:
    now = 10_000.0

    def __call__(self) -> float:
        return self.now


def record(index: int, message: str, kind: str = "raised", host: str = "") -> ErrorRecord:
    detail = {"host": host} if host else None
    return ErrorRecord(index, kind, "ValueError", message, f"trace of {index}", detail)


def test_messages_that_differ_in_numbers_have_one_cause() -> None:
    failures = Failures(Clock())
    failures.add("m", None, "f", [record(1, "no page 17"), record(2, "no page 4,711")])
    failures.add("m", None, "f", [record(3, "no book 17")])
    failures.add("m", None, "g", [record(1, "no page 17")])
    failures.add("m", None, "f", [record(1, "no page 17", kind="invalid")])
    assert [group.count for group in failures.recent()] == [2, 1, 1, 1]
    first = failures.recent()[0]
    assert (first.message, first.indexes, first.traceback) == ("no page 17", [1, 2], "trace of 1")


def test_a_cause_has_its_times_its_hosts_and_its_maps() -> None:
    clock = Clock()
    failures = Failures(clock)
    failures.add("=j=1", "j", "f", [record(1, "x", host="a")])
    clock.now += 200
    failures.add("m2", None, "f", [record(1, "x", host="b"), record(2, "x", host="b")])
    clock.now += 10
    [group] = failures.recent()
    activity = group.activity(clock.now)
    assert (activity.first, activity.last, activity.hosts) == (210.0, 10.0, ["a", "b"])
    assert sum(activity.counts) == 3 and activity.counts[-1] == 2
    [own] = failures.of_map("=j=1")
    assert own.count == 1
    details = failures.details(group.key)
    assert details is not None and details.traceback == "trace of 1"
    assert details.maps == ["=j=1", "m2"]
    assert failures.details("another") is None


def test_a_cause_is_forgotten_after_an_hour_and_there_are_never_too_many() -> None:
    clock = Clock()
    failures = Failures(clock)
    for number in range(MOST_GROUPS + 5):
        clock.now += 1
        failures.add("m", None, f"f{number}", [record(1, "x")])
    assert len(failures.recent()) == MOST_GROUPS
    assert failures.recent()[-1].function != "f0", "the oldest made room"
    clock.now += KEPT_SECONDS + 1
    failures.add("m", None, "f", [record(1, "y")])
    assert [group.message for group in failures.recent()] == ["y"]


def test_many_failures_take_no_more_room() -> None:
    clock = Clock()
    failures = Failures(clock)
    for number in range(2_000):
        clock.now += 60
        failures.add(f"m{number}", None, "f", [record(number, "x", host=f"h{number}")])
    [group] = failures.recent()
    assert group.count == 2_000 and len(group.slices) <= 30
    assert len(group.maps) <= 8 and len(group.hosts) <= 9 and len(group.indexes) <= 8
