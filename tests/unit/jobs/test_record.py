"""Records as they are stored, and those that this version cannot read."""

from __future__ import annotations

import msgspec
import pytest

from jetmap import bounds
from jetmap.errors import JobUnreadable
from jetmap.jobs.record import VERSION, Record, check_readable, read_record
from jetmap.wire.messages import encode

RECORD = Record(id="j", function="f", format="json", state="running", ttl=5.0, total=10, key="k")


def stored(record: Record) -> bytes:
    return msgspec.json.encode(record)


def test_a_record_is_read_as_it_was_written() -> None:
    assert read_record(stored(RECORD), "j") == RECORD
    check_readable(RECORD)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"[1]", "damaged"),
        (b'{"id":"j","function":"f","format":"json","done":-1}', "damaged"),
        (b"[" * 100_000, "damaged"),
        (encode({"id": "j"}), "damaged"),
        (stored(msgspec.structs.replace(RECORD, id="k")), "names another job, 'k'"),
        (
            stored(msgspec.structs.replace(RECORD, version=VERSION + 1)),
            f"has version {VERSION + 1}; this jetmap reads up to {VERSION}",
        ),
    ],
)
def test_what_cannot_be_read_says_why_and_can_only_be_deleted(data: bytes, reason: str) -> None:
    record = read_record(data, "j")
    assert (record.id, record.state, record.is_over) == ("j", "unreadable", True)
    assert reason in (record.reason or "")
    with pytest.raises(JobUnreadable, match="job j: its record"):
        check_readable(record)


def test_of_an_unreadable_record_what_its_removal_needs_is_kept() -> None:
    fields = msgspec.json.decode(stored(RECORD)) | {"version": VERSION + 1, "reserved": 70}
    record = read_record(msgspec.json.encode(fields), "j")
    assert (record.function, record.key, record.reserved) == ("f", "k", 70)
    record = read_record(msgspec.json.encode(fields | {"reserved": "?", "created": -1}), "j")
    assert (record.reserved, record.created) == (0, 0.0)


def test_a_ttl_of_an_earlier_version_is_brought_within_bounds() -> None:
    endless = read_record(stored(msgspec.structs.replace(RECORD, ttl=1e300)), "j")
    assert endless.ttl == bounds.finite(1e300, bounds.TTL) < 1e300


def test_callers_see_what_is_left() -> None:
    running = msgspec.structs.replace(RECORD, started=10.0, updated=20.0, done=5)
    assert (running.rate, running.seconds_left) == (0.5, 10.0)
    waiting = msgspec.structs.replace(running, waiting_for="room", waiting_since=15.0, updated=90.0)
    assert (waiting.public_state, waiting.rate, waiting.seconds_left) == ("waiting", 1.0, None)
    assert RECORD.rate is None and RECORD.seconds_left is None
    over = msgspec.structs.replace(running, state="succeeded", finished=20.0)
    assert over.seconds_left == 0.0
