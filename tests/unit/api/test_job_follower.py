"""Outcomes that are gone, and those that never come."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.errors import JobEnded
from jetmap.jobs.record import Record
from jetmap_api.job_follower import check_kept, incomplete


def record(state: Any, **more: Any) -> Record:
    return Record(id="j", function="f", format="json", state=state, **more)


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
