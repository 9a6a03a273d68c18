"""Positions in a job's events, and outcomes that never come."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.errors import JobEnded
from jetmap.jobs.record import Record
from jetmap_api import jobstreams
from jetmap_api.jobstreams import EventId, check_kept, incomplete, write
from jetmap_api.problems import Problem


def record(state: Any, **more: Any) -> Record:
    return Record(id="j", function="f", format="json", state=state, **more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EventId()),
        ("7", EventId(7, run=1)),
        ("7.2", EventId(7, 2, run=1)),
        ("7-end", EventId(7, 0, True, 1)),
        ("3/7.2-end", EventId(7, 2, True, 3)),
    ],
)
def test_ids_of_events(text: str, expected: EventId) -> None:
    assert EventId.read(text) == expected


@pytest.mark.parametrize(
    "text", ["x", "-1", "7.", "7-END", " 7", "1" * 19, "\N{ARABIC-INDIC DIGIT SEVEN}"]
)
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        EventId.read(text)
    assert caught.value.members["parameter"] == "Last-Event-ID"


def test_outcomes_of_expired_jobs_are_gone() -> None:
    check_kept(record("failed"))
    for state in ("expired", "deleted"):
        with pytest.raises(JobEnded):
            check_kept(record(state))


def test_an_incomplete_job_says_how_far_it_came() -> None:
    problem = incomplete(record("failed", total=5), 3)
    assert problem.slug == "job-failed" and problem.members == {"job": "j", "done": 3, "total": 5}
    assert problem.detail == "3 of 5 items have an outcome; the others get none"
    assert incomplete(record("cancelled", total=5, reason="enough"), 0).detail == "enough"


@pytest.mark.anyio
async def test_a_stream_is_closed_when_the_client_leaves() -> None:
    closed = False

    async def pieces() -> Any:
        nonlocal closed
        try:
            yield b"one"
            yield b"two"
        finally:
            closed = True

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 1:
            raise OSError

    await write(send, b"text/plain", pieces())
    assert closed and [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert jobstreams.STREAM_HEADERS[0] in sent[0]["headers"]
