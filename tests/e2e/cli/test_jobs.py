"""The command line's jobs, with real processes: submit, look, follow, read, end; and the store
of `jetmap up`, in which they outlive it."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from fake_jobs import FakeJobs, JobCluster
from house import House, Up
from jetmap import ConfigurationError
from jetmap.cli import store as stores
from jetmap.cli.app import build
from jetmap.cli.exits import Exit
from jetmap.cli.job import printable
from jetmap.cli.jobs import duration
from jetmap.cli.progress import Bar
from jetmap.dispatch.outcomes import Batch
from jetmap.embedded.locks import is_held
from jetmap.settings import Settings
from jetmap.wire.messages import ErrorRecord
from waiting import wait_until_sync


def submitted(house: House, *arguments: str, input: str) -> str:
    done = house.run("submit", *arguments, input=input)
    assert done.returncode == 0, done.stderr
    id = done.stdout.strip()
    assert f"jetmap job {id} --follow" in done.stderr
    return id


def lines(values: Any) -> str:
    return "".join(f"{value}\n" for value in values)


# With an `up`


def test_a_job_from_its_submission_to_its_results(shared_up: Up) -> None:
    house = shared_up.house
    id = submitted(house, "double", "--kwargs", '{"plus": 1}', input=lines(range(100, 3000)))
    done = house.run("job", id, "--results")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == lines(2 * n + 1 for n in range(100, 3000))
    done = house.run("job", id, "--follow", "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert (status["id"], status["function"], status["state"]) == (id, "double", "succeeded")
    assert (status["total"], status["done"], status["failed"]) == (2900, 2900, 0)
    assert status["created"] <= status["started"] <= status["finished"]
    assert status["finished"].endswith("Z")
    said = house.run("job", id).stdout
    assert "succeeded" in said and "2,900 of 2,900 done, 0 failed" in said


def test_failing_items_are_null_and_told(shared_up: Up) -> None:
    id = submitted(shared_up.house, "double", input='12\n13\n"x"\n14\n')
    done = shared_up.house.run("job", id, "--results")
    assert (done.returncode, done.stdout) == (Exit.ITEMS_FAILED, "24\nnull\nnull\n28\n")
    assert "item 1: ValueError: unlucky" in done.stderr
    assert "2 items failed" in done.stderr
    assert shared_up.house.run("job", id, "--follow").returncode == Exit.ITEMS_FAILED
    assert shared_up.house.run("job", id).returncode == Exit.OK
    done = shared_up.house.run("job", id, "--results", "--json")
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert outcomes[0] == {"index": 0, "value": 24}
    error = {"index": 1, "kind": "raised", "type": "ValueError", "message": "unlucky"}
    assert outcomes[1] == {"index": 1, "error": error}


def test_a_file_of_nothing_is_a_job(shared_up: Up) -> None:
    (shared_up.house.directory / "none").write_text("\n\n", encoding="utf-8")
    id = submitted(shared_up.house, "double", "none", input="")
    done = shared_up.house.run("job", id, "--results")
    assert (done.returncode, done.stdout) == (0, "")


def test_jobs_are_listed_cancelled_and_deleted(shared_up: Up) -> None:
    house = shared_up.house
    id = submitted(house, "slow", input="60\n60\n60\n")
    wait_until_sync(lambda: _state(house, id) == "running", "it runs")
    following = house.start("job", id, "--follow")
    listed = json.loads(house.run("jobs", "--state", "running,queued", "--json").stdout)
    assert [job["id"] for job in listed] == [id]
    said = house.run("jobs", "--function", "slow").stdout
    assert id in said and "running" in said
    done = house.run("job", id, "--cancel", "--json")
    assert json.loads(done.stdout)["state"] == "cancelled"
    assert following.wait(20) == Exit.ITEMS_FAILED
    done = house.run("job", id, "--results")
    assert (done.returncode, done.stdout) == (Exit.ITEMS_FAILED, "")
    assert f"job {id} was cancelled: 0 of 3 items" in done.stderr
    assert house.run("job", id, "--delete").returncode == 0
    for action in ((), ("--results",), ("--follow",), ("--cancel",), ("--delete",)):
        done = house.run("job", id, *action)
        assert done.returncode == Exit.USAGE
        assert f"no job '{id}'" in done.stderr


def test_a_retry_with_its_key_is_the_same_job(shared_up: Up) -> None:
    house = shared_up.house
    id = submitted(house, "double", "--key", "k", input="1\n2\n")
    done = house.run("submit", "double", "--key", "k", input="1\n2\n")
    assert done.stdout.strip() == id
    assert "'k' has this job already" in done.stderr
    done = house.run("submit", "double", "--key", "k", input="1\n3\n")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "key" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "input", "code", "message"),
    [
        (["double"], "1\n1 2\n", Exit.USAGE, "line 2"),
        (["double"], "1\n" + "[" * 100_000, Exit.USAGE, "line 2"),
        (["double"], '"' + "x" * 1_000_000 + '"\n', Exit.USAGE, "max_item_bytes"),
        (["nope"], "1\n", Exit.WORKERS, "'nope'"),
    ],
)
def test_submit_refuses_and_leaves_nothing(
    shared_up: Up, arguments: list[str], input: str, code: Exit, message: str
) -> None:
    before = shared_up.house.run("jobs", "--json", "--limit", "9999").stdout
    done = shared_up.house.run("submit", *arguments, input=input)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert shared_up.house.run("jobs", "--json", "--limit", "9999").stdout == before


def test_interrupting_submit_leaves_nothing_and_following_leaves_the_job(shared_up: Up) -> None:
    house = shared_up.house
    process = house.start("submit", "slow")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("60\n")
    process.stdin.flush()
    wait_until_sync(lambda: _connected(process.pid), "it is connected")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == Exit.INTERRUPTED
    assert process.stdout.read() == ""

    id = submitted(house, "slow", input="60\n")
    following = house.start("job", id, "--results")
    wait_until_sync(lambda: _connected(following.pid), "it is connected")
    following.send_signal(signal.SIGINT)
    assert following.wait(20) == Exit.INTERRUPTED
    assert _state(house, id) in ("queued", "running")
    assert house.run("job", id, "--delete").returncode == 0
    found = json.loads(house.run("jobs", "--state", "queued,running", "--json").stdout)
    assert found == []


# The store of `up`


def test_finished_and_unfinished_jobs_outlive_up(house: House) -> None:
    up = house.up()
    id = submitted(house, "double", input="1\n2\n")
    assert house.run("job", id, "--follow").returncode == 0
    later = submitted(house, "slow", input="1\n1\n1\n1\n1\n1\n")
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL
    up = house.up()
    assert house.run("job", id, "--results").stdout == "2\n4\n"
    assert len(house.run("job", later, "--results").stdout.split()) == 6
    [kept] = (house.directory / "state" / "jetmap").iterdir()
    assert f"{kept}\n" in _rest(up)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert str(house.directory) in (kept / "README").read_text(encoding="utf-8")
    assert up.stop() == 0
    house.nothing_is_left()


def test_up_without_a_store_keeps_nothing_and_says_so(house: House) -> None:
    up = house.up("--store", "none")
    done = house.run("submit", "double", input="1\n")
    assert (done.returncode, done.stdout) == (Exit.STORE, "")
    assert "--store DIRECTORY" in done.stderr
    assert house.run("jobs").returncode == Exit.STORE
    assert up.get("/map/double", "[5]") == (200, [10])
    assert "store     none: no jobs" in _rest(up)
    assert up.stop() == 0
    assert not (house.directory / "state").exists()
    house.nothing_is_left()


def test_a_store_belongs_to_one_up(house: House) -> None:
    up = house.up("--store", "mine")
    assert (house.directory / "mine" / "jetmap.lock").exists()
    done = house.run(
        *("up", "tasks.py", "--port", "0", "--nats-port", "0", "--store", "mine", "--pool", "b"),
        timeout=20,
    )
    assert done.returncode == Exit.USAGE
    assert "mine is used by another `jetmap up`" in done.stderr
    assert up.stop() == 0
    assert not is_held(house.directory / "mine" / "jetmap.lock")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(stores, "RELEASE_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_default_store_is_of_directory_and_pool(place: Path) -> None:
    found = {
        stores.default_store(cwd, pool)
        for cwd in (place, place / "state")
        for pool in ("default", "blue")
    }
    assert len(found) == 4
    assert {path.parent for path in found} == {place / "state" / "jetmap"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place / "home"))
        for unusable in ("", "relative/path"):
            patch.setenv("XDG_STATE_HOME", unusable)
            path = stores.default_store(place, "default")
            assert path.parent == place / "home" / ".local" / "state" / "jetmap"


def test_without_its_default_store_up_has_no_jobs(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load()
    first = stores.hold_store(settings)
    assert first is not None
    assert stores.hold_store(settings) is None
    assert "is used by another `jetmap up`: there will be no jobs" in caplog.text
    first.close()
    first.close()
    again = stores.hold_store(settings)
    assert again is not None
    again.close()
    (place / "file").touch()
    os.environ["XDG_STATE_HOME"] = str(place / "file")
    assert stores.hold_store(settings) is None
    assert "file" in caplog.text
    with pytest.raises(ConfigurationError, match="cannot be used"):
        stores.hold_store(Settings.load(store=str(place / "file" / "store")))
    assert stores.hold_store(Settings.load(store="none")) is None


# Without a broker

Invoke = Callable[..., Result]


@pytest.fixture
def jobs(place: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    """What commands of this process take for the jobs of their broker."""
    fake = FakeJobs()

    def attached(settings: Settings) -> JobCluster:
        return JobCluster(fake)

    for command in ("submit", "jobs", "job"):
        monkeypatch.setattr(f"jetmap.cli.{command}.attached", attached)
    return fake


def invoke(*arguments: str) -> Result:
    done = CliRunner().invoke(build(list(arguments)), arguments)
    assert "Traceback" not in done.output
    return done


def test_submit_passes_its_options_on(jobs: FakeJobs) -> None:
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


def test_jobs_are_paged(jobs: FakeJobs) -> None:
    for number in range(2500):
        jobs.add(f"{number:05}", 3)
    assert len(json.loads(invoke("jobs", "--json", "--limit", "2100").stdout)) == 2100
    assert len(json.loads(invoke("jobs", "--json", "--limit", "9999").stdout)) == 2500
    assert "--limit shows more" in invoke("jobs", "--limit", "2").stdout
    assert "no jobs" in invoke("jobs", "--state", "failed").stdout


def test_a_job_says_why_it_failed(jobs: FakeJobs) -> None:
    jobs.add("j", 3)
    jobs.end("j", "failed", "the store is full")
    assert "failed: the store is full" in invoke("job", "j").stdout
    done = invoke("job", "j", "--results")
    assert done.exit_code == Exit.ITEMS_FAILED
    assert "failed (the store is full): 0 of 3" in done.stderr


def test_values_of_python_jobs_print_as_json(jobs: FakeJobs) -> None:
    jobs.add("j", 4)
    jobs.put("j", 0, b"ab", float("nan"), {"x": "ü"}, 7, failed=[3])
    jobs.end("j", "failed")
    done = invoke("job", "j", "--results")
    assert done.stdout == '"YWI="\nnull\n{"x":"ü"}\nnull\n'
    assert "item 1: " in done.stderr and "no JSON" in done.stderr
    assert "2 items failed" in done.stderr


def test_outcomes_with_their_index() -> None:
    batch = Batch(5, 2, b"[1,null]", [ErrorRecord(6, "raised", "E", "m", "traceback")])
    printed, errors = printable(batch, "json", True)
    assert printed[0] == b'{"index":5,"value":1}'
    assert json.loads(printed[1])["error"]["message"] == "m"
    assert errors == batch.errors


def test_the_bar_is_shown_on_a_terminal(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, width=100, record=True)
    monkeypatch.setattr("jetmap.cli.job.Bar", lambda name, total: Bar(name, total, console=console))
    jobs.add("j", 4)
    jobs.put("j", 0, 1, 2, 3, 4)
    jobs.end("j", "succeeded")
    assert invoke("job", "j", "--follow").exit_code == 0
    assert "4/4" in console.export_text()


def test_durations_for_people() -> None:
    found = [duration(seconds) for seconds in (None, 0.2, 8, 125, 10_800)]
    assert found == ["", "0 s", "8 s", "2:05", "3:00:00"]


def _state(house: House, id: str) -> str:
    return str(json.loads(house.run("job", id, "--json").stdout)["state"])


def _connected(pid: int) -> bool:
    import psutil

    connections = psutil.Process(pid).net_connections("tcp")
    return any(found.status == psutil.CONN_ESTABLISHED for found in connections)


def _rest(up: Up) -> str:
    """The line after the broker's."""
    assert up.process.stdout is not None
    return up.process.stdout.readline()
