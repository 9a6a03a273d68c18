"""The command line's jobs, with real processes: submit, look, follow, read, end; and the store
of `jetmap up`, in which they outlive it."""

from __future__ import annotations

import json
import signal
import stat
from typing import Any

import pytest

from house import House, Up
from jetmap.cli.exits import Exit
from jetmap.embedded.locks import is_held
from waiting import PATIENCE, wait_until_sync


def submitted(house: House, *arguments: str, input: str) -> str:
    done = house.call("submit", *arguments, input=input)
    assert done.returncode == 0, done.stderr
    id = done.stdout.strip()
    assert f"jetmap job {id} --follow" in done.stderr
    return id


def lines(values: Any) -> str:
    return "".join(f"{value}\n" for value in values)


# With an `up`


def test_a_job_from_its_submission_to_its_results(shared_up: Up) -> None:
    house = shared_up.house
    done = house.call("submit", "double", "--kwargs", '{"plus": 1}', input=lines(range(100, 3000)))
    id = done.stdout.strip()
    done = house.call("job", id, "--results")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == lines(2 * n + 1 for n in range(100, 3000))
    done = house.call("job", id, "--follow", "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert (status["id"], status["function"], status["state"]) == (id, "double", "succeeded")
    assert (status["total"], status["done"], status["failed"]) == (2900, 2900, 0)
    assert status["created"] <= status["started"] <= status["finished"]
    assert status["finished"].endswith("Z")
    said = house.call("job", id).stdout
    assert "succeeded" in said and "2,900 of 2,900 done, 0 failed" in said


def test_failing_items_are_null_and_told(shared_up: Up) -> None:
    id = submitted(shared_up.house, "double", input='12\n13\n"x"\n14\n')
    done = shared_up.house.call("job", id, "--results")
    assert (done.returncode, done.stdout) == (Exit.ITEMS_FAILED, "24\nnull\nnull\n28\n")
    assert "item 1: ValueError: unlucky" in done.stderr
    assert "2 items failed" in done.stderr
    assert shared_up.house.call("job", id, "--follow").returncode == Exit.ITEMS_FAILED
    assert shared_up.house.call("job", id).returncode == Exit.OK
    done = shared_up.house.call("job", id, "--results", "--json")
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert outcomes[0] == {"index": 0, "value": 24}
    error = {"index": 1, "kind": "raised", "type": "ValueError", "message": "unlucky"}
    assert outcomes[1] == {"index": 1, "error": error}


def test_a_file_of_nothing_is_a_job(shared_up: Up) -> None:
    (shared_up.house.directory / "none").write_text("\n\n", encoding="utf-8")
    id = submitted(shared_up.house, "double", "none", input="")
    done = shared_up.house.call("job", id, "--results")
    assert (done.returncode, done.stdout) == (0, "")


def test_jobs_are_listed_cancelled_and_deleted(shared_up: Up) -> None:
    house = shared_up.house
    id = submitted(house, "slow", input="600\n600\n600\n")
    wait_until_sync(lambda: _state(house, id) == "running", "it runs")
    following = house.start("job", id, "--follow")
    listed = json.loads(house.call("jobs", "--state", "running,queued", "--json").stdout)
    assert [job["id"] for job in listed] == [id]
    said = house.call("jobs", "--function", "slow").stdout
    assert id in said and "running" in said
    done = house.call("job", id, "--cancel", "--json")
    assert json.loads(done.stdout)["state"] == "cancelled"
    assert following.wait(PATIENCE) == Exit.ITEMS_FAILED
    done = house.call("job", id, "--results")
    assert (done.returncode, done.stdout) == (Exit.ITEMS_FAILED, "")
    assert f"job {id} was cancelled: 0 of 3 items" in done.stderr
    assert house.call("job", id, "--delete").returncode == 0
    for action in ((), ("--results",), ("--follow",), ("--cancel",), ("--delete",)):
        done = house.call("job", id, *action)
        assert done.returncode == Exit.USAGE
        assert f"no job '{id}'" in done.stderr


def test_a_retry_with_its_key_is_the_same_job(shared_up: Up) -> None:
    house = shared_up.house
    id = submitted(house, "double", "--key", "k", input="1\n2\n")
    done = house.call("submit", "double", "--key", "k", input="1\n2\n")
    assert done.stdout.strip() == id
    assert "'k' has this job already" in done.stderr
    done = house.call("submit", "double", "--key", "k", input="1\n3\n")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "key" in done.stderr


def test_submit_refuses_and_leaves_nothing(shared_up: Up) -> None:
    """Real commands for one mistake of each kind; the other messages are units."""
    house = shared_up.house
    before = _listed(house)
    for arguments, input, code, message in (
        (["double"], "1\n" + "[" * 100_000, Exit.USAGE, "line 2"),
        (["double"], '"' + "x" * 3_000_000 + '"\n', Exit.USAGE, "max_item_bytes"),
        (["nope"], "1\n", Exit.WORKERS, "'nope'"),
    ):
        done = house.call("submit", *arguments, input=input, JETMAP_MAX_ITEM_BYTES="2MB")
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
    assert _listed(house) == before


@pytest.mark.slow
def test_interrupting_submit_leaves_nothing_and_following_leaves_the_job(shared_up: Up) -> None:
    house = shared_up.house
    process = house.start("submit", "slow")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("600\n")
    process.stdin.flush()
    wait_until_sync(lambda: _connected(process.pid), "it is connected")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == Exit.INTERRUPTED
    assert process.stdout.read() == ""

    id = submitted(house, "slow", input="600\n")
    following = house.start("job", id, "--results")
    wait_until_sync(lambda: _connected(following.pid), "it is connected")
    following.send_signal(signal.SIGINT)
    assert following.wait(PATIENCE) == Exit.INTERRUPTED
    assert _state(house, id) in ("queued", "running")
    assert house.call("job", id, "--delete").returncode == 0
    found = json.loads(house.call("jobs", "--state", "queued,running", "--json").stdout)
    assert found == []


# The store of `up`


def test_jobs_outlive_up(house: House) -> None:
    up = house.up()
    id = submitted(house, "double", input="1\n2\n")
    assert house.call("job", id, "--follow").returncode == 0
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL
    up = house.up()
    assert house.call("job", id, "--results").stdout == "2\n4\n"
    [kept] = (house.directory / "state" / "jetmap").iterdir()
    assert f"{kept}\n" in _rest(up)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert str(house.directory) in (kept / "README").read_text(encoding="utf-8")
    # A store belongs to one `up`.
    other = ("--port", "0", "--nats-port", "0", "--pool", "b")
    done = house.call("up", "tasks.py", "--store", str(kept), *other)
    assert done.returncode == Exit.USAGE
    assert f"{kept} is used by another `jetmap up`" in done.stderr
    assert up.stop() == 0
    assert not is_held(kept / "jetmap.lock")
    house.nothing_is_left()


@pytest.mark.slow
def test_up_without_a_store_keeps_nothing_and_says_so(house: House) -> None:
    up = house.up("--store", "none")
    done = house.call("submit", "double", input="1\n")
    assert (done.returncode, done.stdout) == (Exit.STORE, "")
    assert "--store DIRECTORY" in done.stderr
    assert house.call("jobs").returncode == Exit.STORE
    assert up.get("/map/double", "[5]") == (200, [10])
    assert "store     none: no jobs" in _rest(up)
    assert up.stop() == 0
    assert not (house.directory / "state").exists()
    house.nothing_is_left()


def _listed(house: House) -> list[str]:
    jobs = json.loads(house.call("jobs", "--json", "--limit", "9999").stdout)
    return [job["id"] for job in jobs]


def _state(house: House, id: str) -> str:
    return str(json.loads(house.call("job", id, "--json").stdout)["state"])


def _connected(pid: int) -> bool:
    import psutil

    connections = psutil.Process(pid).net_connections("tcp")
    return any(found.status == psutil.CONN_ESTABLISHED for found in connections)


def _rest(up: Up) -> str:
    """The line after the broker's."""
    assert up.process.stdout is not None
    return up.process.stdout.readline()
