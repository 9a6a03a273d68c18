"""Streams and consumers of the in-memory broker, as plain state in a time that a test names."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.nats.memory_stream import (
    ApiError,
    MemoryConsumer,
    MemoryDelivery,
    MemoryPull,
    MemoryStream,
    matches,
)


def stream(**config: Any) -> MemoryStream:
    return MemoryStream({"name": "S", "subjects": ["a.>"]} | config, 0.0)


def put(into: MemoryStream, subject: str, now: float = 0.0, **headers: str) -> int:
    named = {f"Nats-{name.replace('_', '-')}": value for name, value in headers.items()}
    return into.store(subject, b"x", named, now).seq


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b", "a.c", False),
    ],
)
def test_wildcards(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits


def test_a_message_has_a_number_and_is_the_last_of_its_subject() -> None:
    kept = stream()
    assert [put(kept, s) for s in ("a.x", "a.y", "a.x")] == [1, 2, 3]
    last = kept.last_of("a.x")
    assert last is not None and last.seq == 3 and kept.last_of("a.z") is None
    assert [m.seq for m in kept.select("a.x")] == [1, 3]
    assert [m.seq for m in kept.select("a.>", 2)] == [2, 3]
    assert kept.subjects("a.*") == {"a.x": 2, "a.y": 1}
    assert kept.purge("a.x", None, 1) == 1 and kept.purge("a.>", 3, 0) == 1
    state = kept.state()
    assert (state["messages"], state["first_seq"], state["last_seq"]) == (1, 3, 3)
    kept.remove([3, 3])
    assert kept.size == 0 and kept.state()["first_seq"] == 4


def test_expectations_that_do_not_hold_are_refused() -> None:
    kept = stream()
    put(kept, "a.x", Expected_Last_Subject_Sequence="0")
    for headers in (
        {"Expected_Last_Subject_Sequence": "0"},
        {"Expected_Stream": "OTHER"},
    ):
        with pytest.raises(ApiError):
            put(kept, "a.x", **headers)
    assert put(kept, "a.x", Expected_Last_Subject_Sequence="1") == 2


def test_limits_refuse_or_make_room() -> None:
    old = stream(max_msgs=2)
    for subject in ("a.1", "a.2", "a.3"):
        put(old, subject)
    assert list(old.messages) == [2, 3]
    new = stream(discard="new", max_msgs_per_subject=1, discard_new_per_subject=True, max_bytes=60)
    put(new, "a.1")
    for subject in ("a.1", "a." + "2" * 60):
        with pytest.raises(ApiError):
            put(new, subject)
    each = stream(max_msgs_per_subject=1)
    put(each, "a.1")
    put(each, "a.1")
    assert list(each.messages) == [2]
    assert put(each, "a.1", Rollup="sub") == 3 and list(each.messages) == [3]


def test_what_expires_leaves_a_marker_that_expires_too() -> None:
    kept = stream(subject_delete_marker_ttl=5 * 10**9)
    put(kept, "a.x", TTL="10s")
    put(kept, "a.y")
    assert kept.expire(9.0) == []
    (marker,) = kept.expire(10.0)
    assert (marker.subject, marker.headers["Nats-Marker-Reason"]) == ("a.x", "MaxAge")
    assert kept.expire(15.0) == [] and set(kept.subjects(">")) == {"a.y"}


def consumer(of: MemoryStream, **config: Any) -> MemoryConsumer:
    made = MemoryConsumer(of, "c", {"ack_wait": 10 * 10**9} | config, 0.0)
    of.consumers["c"] = made
    return made


def taken(by: MemoryConsumer, count: int, now: float) -> list[MemoryDelivery]:
    by.pull(MemoryPull("inbox", count, None, 0.0, now), now)
    found = list(by.deliver(now))
    by.waiting.clear()
    return found


def test_a_message_comes_again_until_it_is_acknowledged() -> None:
    queue = stream(retention="workqueue")
    worker = consumer(queue)
    first, second = put(queue, "a.1"), put(queue, "a.2")
    found = taken(worker, 2, 0.0)
    assert [(d.message.seq, d.deliveries, d.pending) for d in found] == [(1, 1, 1), (2, 1, 0)]
    assert taken(worker, 2, 1.0) == []
    worker.acknowledge(first, b"+ACK", 0.0, 1.0)
    assert list(queue.messages) == [second], "a work queue drops what is done"
    worker.acknowledge(second, b"+WPI", 0.0, 9.0)
    worker.overdue(12.0)
    assert taken(worker, 1, 12.0) == [], "its lease was renewed"
    worker.overdue(19.0)
    assert [d.deliveries for d in taken(worker, 1, 19.0)] == [2]
    worker.acknowledge(second, b"-NAK", 5.0, 20.0)
    assert taken(worker, 1, 24.0) == []
    assert [d.deliveries for d in taken(worker, 1, 25.0)] == [3]
    worker.acknowledge(second, b"+TERM", 0.0, 25.0)
    assert not queue.messages and not worker.unacked


def test_pulls_end_and_a_consumer_that_nobody_uses_is_abandoned() -> None:
    kept = stream()
    unused = consumer(kept, inactive_threshold=30 * 10**9)
    unused.pull(MemoryPull("short", 1, 5.0, 0.0, 0.0), 0.0)
    unused.pull(MemoryPull("long", 1, None, 0.0, 0.0), 0.0)
    assert [pull.reply for pull in unused.expire_pulls(5.0)] == ["short"]
    assert not unused.is_abandoned(100.0), "somebody waits"
    unused.waiting.clear()
    assert not unused.is_abandoned(34.0) and unused.is_abandoned(35.0)
