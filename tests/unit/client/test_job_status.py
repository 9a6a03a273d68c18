"""The state of a job at one moment: what a stored record says, as Python callers read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jetmap.client.job_status import JobStatus
from jetmap.jobs.record import OVER, Record


def record_of(state: Any, **fields: Any) -> Record:
    return Record(id="j", function="f", format="json", state=state, reserved=1, **fields)


def test_a_record_becomes_a_status() -> None:
    status = JobStatus.of(
        record_of(
            "running", total=4, done=3, failed=1, created=1e9, labels={"team": "a"}, max_parallel=2
        )
    )
    assert (status.id, status.function, status.state) == ("j", "f", "running")
    assert (status.total, status.done, status.failed, status.run) == (4, 3, 1, 1)
    assert status.created == datetime.fromtimestamp(1e9, UTC)
    assert (status.started, status.finished) == (None, None)
    assert (status.labels, status.max_parallel, status.paused) == ({"team": "a"}, 2, False)


@pytest.mark.parametrize("state", ["queued", "running", *sorted(OVER)])
def test_a_job_is_over_in_any_state_that_ends_it(state: str) -> None:
    assert JobStatus.of(record_of(state)).is_over == (state in OVER)
