"""`jetmap jobs` without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable

from typer.testing import Result

from fake_jobs import FakeJobs
from jetmap.cli.jobs import duration

Invoke = Callable[..., Result]


def test_jobs_are_paged(jobs: FakeJobs, invoke: Invoke) -> None:
    for number in range(2500):
        jobs.add(f"{number:05}", 3)
    assert len(json.loads(invoke("jobs", "--json", "--limit", "2100").stdout)) == 2100
    assert len(json.loads(invoke("jobs", "--json", "--limit", "9999").stdout)) == 2500
    assert "--limit shows more" in invoke("jobs", "--limit", "2").stdout
    assert "no jobs" in invoke("jobs", "--state", "failed").stdout


def test_a_piped_table_is_not_cut(jobs: FakeJobs, invoke: Invoke) -> None:
    labels = {f"label{number}": "x" * 60 for number in range(3)}
    jobs.add("one", 3, labels=labels)
    found = invoke("jobs").stdout
    assert all(f"{name}={value}" in found for name, value in labels.items()) and "…" not in found


def test_labels_that_look_like_markup_are_shown_as_they_are(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("one", 3, labels={"a": "[/b] [red]"})
    assert "a=[/b] [red]" in invoke("jobs").stdout


def test_durations_for_people() -> None:
    found = [duration(seconds) for seconds in (None, 0.2, 8, 125, 10_800)]
    assert found == ["", "0 s", "8 s", "2:05", "3:00:00"]
