"""The documents and headers that describe a job."""

from __future__ import annotations

import pytest

from jetmap.jobs.record import Record
from jetmap_api.documents import encoded
from jetmap_api.job_documents import (
    as_format,
    describe,
    job_path,
    link_to,
    next_link,
    retry_after,
    states_of,
    timestamp,
)
from jetmap_api.problems import Problem

RECORD = Record(
    id="j1", function="f", format="json", state="running", total=4, done=1, failed=1, created=0.5
)


def test_a_document_has_links_below_the_mount() -> None:
    document = describe({"root_path": "/api/"}, RECORD)
    assert document.links.self_ == "/api/jobs/j1" and document.links.events == "/api/jobs/j1/events"
    text = encoded(document)
    assert b'"self":"/api/jobs/j1"' in text and b'"created":"1970-01-01T00:00:00.500Z"' in text
    assert b'"started":null' in text


def test_when_to_look_again() -> None:
    assert retry_after(RECORD) == [(b"retry-after", b"1")]
    over = Record(id="j1", function="f", format="json", state="succeeded")
    assert retry_after(over) == []


def test_states_are_separated_by_commas() -> None:
    assert states_of("") == [] and states_of("running,failed") == ["running", "failed"]
    for wrong in ("expired", "uploading", "nothing", "running,x"):
        with pytest.raises(Problem, match="by commas"):
            states_of(wrong)


def test_small_parts() -> None:
    assert timestamp(None) is None
    assert job_path({}) == "/jobs" and job_path({}, "j", "/results") == "/jobs/j/results"
    assert link_to("/jobs", {"state": "a,b", "x": "1 2"}) == "/jobs?state=a,b&x=1+2"
    assert next_link("/a") == (b"link", b'</a>; rel="next"')
    assert (as_format("msgpack"), as_format("json")) == ("msgpack", "json")
