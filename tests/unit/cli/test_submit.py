"""`jetmap submit` without a broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from fake_jobs import FakeJobs

Invoke = Callable[..., Result]


def test_submit_passes_its_options_on(jobs: FakeJobs, invoke: Invoke) -> None:
    Path("items").write_text('1\n\n{"x": [2]}', encoding="utf-8")
    options = ["--kwargs", '{"a":1}', "--ttl", "60", "--timeout", "5", "--key", "k"]
    done = invoke("submit", "f", "items", *options)
    assert (done.exit_code, done.stdout) == (0, "job1\n")
    [upload] = jobs.uploads
    assert (upload.record.function, upload.items) == ("f", [1, {"x": [2]}])
    assert upload.record.kwargs == b'{"a":1}'
    assert upload.record.format == "json"
    found = [jobs.begun[0][name] for name in ("ttl", "timeout", "key")]
    assert found == [60.0, 5.0, "k"]


def test_a_key_that_is_none_is_refused(jobs: FakeJobs, invoke: Invoke) -> None:
    Path("items").write_text("1", encoding="utf-8")
    done = invoke("submit", "f", "items", "--key", "k" * 256)
    assert done.exit_code == 2 and not jobs.uploads
    assert "--key: key must be a text of 1 to 255 characters" in done.stderr
