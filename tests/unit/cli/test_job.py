"""`jetmap job` without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from rich.console import Console
from typer.testing import Result

from fake_jobs import FakeJobs
from jetmap.cli.exits import Exit
from jetmap.cli.job import printable
from jetmap.cli.progress import Bar
from jetmap.dispatch.outcomes import Batch
from jetmap.wire.messages import ErrorRecord

Invoke = Callable[..., Result]


def test_a_job_says_why_it_failed(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 3)
    jobs.end("j", "failed", "the store is full")
    assert "failed: the store is full" in invoke("job", "j").stdout
    done = invoke("job", "j", "--results")
    assert done.exit_code == Exit.ITEMS_FAILED
    assert "failed (the store is full): 0 of 3" in done.stderr


def test_control_characters_of_a_job_do_not_act(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 3, function="f\u202e", labels={"a": "\x9b2J"})
    jobs.end("j", "failed", "\x1b[2Jfull\nof \x9b")
    shown = invoke("job", "j").stdout
    assert "failed: \\x1b[2Jfull\nof \\x9b" in shown and "a=\\x9b2J" in shown
    listed = invoke("jobs").stdout
    assert "f\\u202e" in listed and "a=\\x9b2J" in listed
    for text in (shown, listed, invoke("job", "j", "--results").output):
        assert not set("\x1b\x9b\u202e") & set(text)


def test_values_of_python_jobs_print_as_json(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 4)
    jobs.put("j", 0, b"ab", float("nan"), {"x": "ü"}, 7, failed=[3])
    jobs.end("j", "failed")
    done = invoke("job", "j", "--results")
    assert done.stdout == '"YWI="\nnull\n{"x":"ü"}\nnull\n'
    assert "item 1: " in done.stderr and "no JSON" in done.stderr
    assert "2 items failed" in done.stderr


@pytest.mark.parametrize(
    ("max_failed", "state", "code"),
    [("1", "succeeded", Exit.OK), ("0", "failed", Exit.ITEMS_FAILED), (None, "failed", 1)],
)
def test_tolerated_failures_are_printed_and_leave_the_exit_code(
    jobs: FakeJobs, invoke: Invoke, max_failed: str | None, state: str, code: int
) -> None:
    jobs.add("j", 2, max_failed=max_failed)
    jobs.put("j", 0, 1, 2, failed=[1])
    jobs.end("j")
    assert jobs.records["j"].state == state
    done = invoke("job", "j", "--results")
    assert (done.exit_code, done.stdout) == (code, "1\nnull\n")
    assert "item 1: ValueError: no 1" in done.stderr
    assert invoke("job", "j", "--follow").exit_code == code


def test_a_value_that_cannot_be_printed_is_not_tolerated(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 2, max_failed="1")
    jobs.put("j", 0, float("nan"), 2, failed=[1])
    jobs.end("j", "succeeded")
    done = invoke("job", "j", "--results")
    assert (done.exit_code, done.stdout) == (Exit.ITEMS_FAILED, "null\nnull\n")


def test_the_run_that_is_read_decides(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 2)
    jobs.put("j", 0, 1, 2, failed=[1])
    jobs.end("j")
    invoke("job", "j", "--retry")
    jobs.put("j", 1, 2)
    jobs.end("j", "succeeded")
    assert invoke("job", "j", "--results").exit_code == Exit.OK
    assert invoke("job", "j", "--results", "--run", "1").exit_code == Exit.ITEMS_FAILED


def test_outcomes_with_their_index() -> None:
    batch = Batch(5, 2, b"[1,null]", [ErrorRecord(6, "raised", "E", "m", "traceback")])
    printed, errors = printable(batch, "json", True)
    assert printed[0] == b'{"index":5,"value":1}'
    assert json.loads(printed[1])["error"]["message"] == "m"
    assert errors == batch.errors


def test_the_bar_is_shown_on_a_terminal(
    jobs: FakeJobs, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(force_terminal=True, width=100, record=True)
    monkeypatch.setattr("jetmap.cli.job.Bar", lambda name, total: Bar(name, total, console=console))
    jobs.add("j", 4)
    jobs.put("j", 0, 1, 2, 3, 4)
    jobs.end("j", "succeeded")
    assert invoke("job", "j", "--follow").exit_code == 0
    assert "4/4" in console.export_text()


def test_failed_items_are_listed_and_run_again(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 2)
    assert "is running: wait" in invoke("job", "j", "--retry").stderr
    jobs.put("j", 0, 1, 2, failed=[1])
    jobs.end("j")
    expected = '{"index":1,"kind":"raised","type":"ValueError","message":"no 1"}\n'
    assert invoke("job", "j", "--failed").stdout == expected
    done = invoke("job", "j", "--retry")
    assert done.exit_code == 0 and "queued" in done.stdout and "run       2" in done.stdout
    assert invoke("job", "j", "--failed").stdout == ""
    assert invoke("job", "j", "--failed", "--run", "1").stdout == expected
    assert "has no run 3" in invoke("job", "j", "--failed", "--run", "3").stderr
    assert "--run: give" in invoke("job", "j", "--run", "1").stderr


def test_a_job_is_paused_limited_and_resumed(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 2)
    assert "paused    until" in invoke("job", "j", "--pause").stdout
    assert "limit     3 cores" in invoke("job", "j", "--max-parallel", "3").stdout
    assert "limit" not in invoke("job", "j", "--max-parallel", "0").stdout
    assert "paused" not in invoke("job", "j", "--resume").stdout


def test_limits_and_labels_of_a_job_are_changed(jobs: FakeJobs, invoke: Invoke) -> None:
    jobs.add("j", 200, labels={"team": "a", "old": "1"})
    options = ("--max-failed", "5%", "--label", "team=b", "--unlabel", "old", "--max-parallel", "2")
    shown = invoke("job", "j", *options).stdout
    assert "labels    team=b\n" in shown and "limit     2 cores" in shown
    assert "may fail  5% items" in shown
    shown = invoke("job", "j", "--max-failed", "any").stdout
    assert "may fail" not in shown and "limit     2 cores" in shown
    assert "exclude each other" in invoke("job", "j", "--label", "a=1", "--cancel").stderr
    assert "must be" in invoke("job", "j", "--max-failed", "x").stderr
    assert "malformed" in invoke("job", "j", "--label", "a b=1").stderr
    assert "malformed" in invoke("job", "j", "--unlabel", "team=b").stderr
    both = invoke("job", "j", "--label", "team=c", "--unlabel", "team").stderr
    assert "both name team" in both
    assert "--pause and --unlabel" in invoke("job", "j", "--unlabel", "a", "--pause").stderr
    assert jobs.records["j"].labels == {"team": "b"}
    jobs.end("j")
    refused = invoke("job", "j", "--label", "a=1")
    assert refused.exit_code == Exit.STORE and "is over" in refused.stderr
