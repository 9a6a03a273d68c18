"""``jetmap status``, ``check`` and ``api``, beside an ``up`` that runs."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request

import pytest

from house import House, Up
from jetmap.cli.exits import Exit
from waiting import PATIENCE, wait_until_sync


def test_status(shared_up: Up) -> None:
    done = shared_up.house.call("status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["pool"], found["cores"], found["ready"]) == ("default", 2, 2)
    assert [function["name"] for function in found["functions"]] == ["double", "slow"]
    assert found["offers"][0]["functions"] == ["double", "slow"]
    assert found["hosts"][0]["host"] == socket.gethostname()
    said = shared_up.house.call("status", "--here").stdout
    assert "2 of 2 cores ready" in said
    assert "Twice as much." in said


@pytest.mark.slow
def test_check_says_what_is_and_what_is_not(shared_up: Up, house: House) -> None:
    done = shared_up.house.run("check", "tasks.py")
    assert done.returncode == 0, done.stdout
    assert "tasks: double, slow" in done.stdout
    assert "stream JETMAP_WORK_default" in done.stdout

    house.tasks.write_text("x = 1\n", encoding="utf-8")
    secret = house.directory / "secret"
    secret.write_text("s", encoding="utf-8")
    secret.chmod(0o644)
    done = house.run(
        *("check", "tasks.py", "--nats", "nats://127.0.0.1:1", "--token-file", "secret"),
        JETMAP_NATSURL="x",
    )
    assert done.returncode == Exit.USAGE
    assert "chmod 600" in done.stdout
    assert "tasks: " in done.stdout and "@task" in done.stdout
    assert "broker: " in done.stdout
    assert "unknown setting JETMAP_NATSURL: did you mean JETMAP_NATS_URL?" in done.stdout


@pytest.mark.slow
def test_another_gateway_finds_the_running_up(shared_up: Up) -> None:
    process = shared_up.house.start("api", "--port", "0")
    assert process.stdout is not None
    url = process.stdout.readline().strip().removesuffix("/docs")
    other = object.__new__(Up)
    other.url = url
    wait_until_sync(lambda: other.get("/readyz")[0] == 200, "ready")
    assert other.get("/map/double", "[1, 2]") == (200, [2, 4])
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_top_prints_one_frame_into_a_pipe_and_ui_serves_the_dashboard(shared_up: Up) -> None:
    shown = shared_up.house.call("top").stdout
    assert "pool default" in shown and "of 2 cores busy" in shown and "D double" in shown
    process = shared_up.house.start("ui")
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.endswith("/ui")
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert b"data-root" in answer.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
