"""``jetmap up`` and ``jetmap worker``, really: what they serve, survive and leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import psutil
import pytest

from house import UP, House, Up, runs
from waiting import PATIENCE, wait_until_sync


def test_secrets_are_on_no_command_line(shared_up: Up) -> None:
    password = shared_up.house.running().password
    family = [
        psutil.Process(shared_up.process.pid),
        *shared_up.house.descendants(shared_up.process),
    ]
    assert len(family) >= 6  # itself, server, agent, gateway, a worker a core
    for process in family:
        assert password not in " ".join(process.cmdline())


def test_everything_dies_with_up_however_it_dies(house: House) -> None:
    up = house.up()
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until_sync(lambda: not any(runs(child) for child in up.children), "all children are gone")
    # The next one clears what could not be cleared.
    again = house.up()
    assert again.get("/map/double", "[4]") == (200, [8])
    assert again.stop(signal.SIGINT) == 0
    house.nothing_is_left()


def test_up_starts_again_what_crashes(house: House) -> None:
    up = house.up()
    for part in ("worker", "api", "nats-server"):
        before = up.child(part)
        before.kill()
        wait_until_sync(lambda before=before: not runs(before), f"{part} is gone")
        wait_until_sync(lambda: up.get("/readyz")[0] == 200, f"ready without the first {part}")
        wait_until_sync(
            lambda: up.get("/map/double", "[5]") == (200, [10]), f"maps without the first {part}"
        )
        assert up.child(part).pid != before.pid
    assert up.stop() == 0
    house.nothing_is_left()


@pytest.mark.slow
def test_up_tells_other_hosts_how_to_join(house: House) -> None:
    secret = house.directory / "nats-password"
    secret.write_text("correct-horse", encoding="utf-8")
    up = house.up("--nats-host", "0.0.0.0", "--nats-password-file", "nats-password")
    # The command stands on a line of its own, after those of the broker and its store.
    assert up.process.stdout is not None
    lines = [up.process.stdout.readline() for _ in range(4)]
    command = lines[-1].split()
    assert command[:3] == ["jetmap", "worker", "tasks.py"]
    worker = house.start(*command[1:])
    wait_until_sync(lambda: up.ready == 4, "the other host's cores joined")
    if len(os.sched_getaffinity(0)) == 2:
        assert "now counts twice" in house.said and "end one of the two" in house.said
    house.descendants(worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    wait_until_sync(lambda: up.ready == 2, "and left")
    assert up.stop() == 0
    house.nothing_is_left()


@pytest.mark.slow
def test_a_worker_finishes_on_the_first_signal_and_ends_on_the_second(house: House) -> None:
    up = house.up("--cores", "1")

    def stopped_in_an_item(seconds: int, *options: str) -> tuple[Any, Any]:
        """A worker that has heard the first signal, and the map that it works for."""
        worker = house.start("worker", "tasks.py", "--cores", "1", *options)
        wait_until_sync(lambda: up.ready == 2, "both are ready")
        mapping = house.start("map", "slow")
        assert mapping.stdin is not None
        mapping.stdin.write(f"{seconds}\n{seconds}\n")
        mapping.stdin.close()
        wait_until_sync(lambda: up.busy == 2, "both are busy")
        house.descendants(worker)
        worker.send_signal(signal.SIGTERM)
        return worker, mapping

    worker, mapping = stopped_in_an_item(3, "--grace", "500")
    assert worker.wait(PATIENCE) == 0
    assert mapping.wait(PATIENCE) == 0

    worker, _ = stopped_in_an_item(1000, "--grace", "600")
    wait_until_sync(lambda: "SIGTERM: finishing within 600 s" in house.said, "it drains")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0


def test_the_first_ctrl_c_finishes_what_was_asked_for(house: House) -> None:
    up = house.up("--grace", "600")
    with ThreadPoolExecutor() as clients:
        answers = [clients.submit(up.get, "/map/slow", "[1, 1, 1]") for _ in range(2)]
        wait_until_sync(lambda: up.busy == 2, "both cores are busy")
        up.interrupt()
        found = [answer.result() for answer in answers]
    assert [status for status, _ in found] == [200, 200]
    assert [len(pids) for _, pids in found] == [3, 3]
    assert up.process.wait(PATIENCE) == 0
    house.nothing_is_left()


def test_a_closed_terminal_lets_it_finish_what_was_asked_for(house: House) -> None:
    process, terminal = house.start_in_terminal(*UP)
    up = Up(house, process)
    with ThreadPoolExecutor() as clients:
        answer = clients.submit(up.get, "/map/slow", "[2, 2]")
        wait_until_sync(lambda: up.busy > 0, "a core is busy")
        house.descendants(process)
        os.close(terminal)
        assert answer.result()[0] == 200
    assert process.wait(PATIENCE) == 0
    house.nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("signals", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_what_takes_longer_than_the_grace_is_an_error(house: House, signals: int) -> None:
    """The second signal does not wait for the grace, either."""
    up = house.up("--grace", "2" if signals == 1 else "600")
    with ThreadPoolExecutor() as clients:
        answer = clients.submit(status, up, "/map/slow", b"[1000, 1000]")
        wait_until_sync(lambda: up.busy == 2, "both cores are busy")
        up.interrupt()
        if signals == 2:
            wait_until_sync(lambda: status(up, "/healthz", timeout=0.5) == 0, "it takes no more")
            up.interrupt()
        assert up.process.wait(PATIENCE) == 0
        assert answer.result(PATIENCE) != 200
    house.nothing_is_left()
    assert "Traceback" not in house.said


@pytest.mark.slow
def test_signals_that_do_not_cease(house: House) -> None:
    """Whoever shuts down sends what it likes, as often as it likes."""
    up = house.up("--cores", "1")
    running = house.start("worker", "tasks.py", "--cores", "1"), house.start("api", "--port", "0")
    wait_until_sync(lambda: up.ready == 2, "the worker is ready")
    assert running[1].stdout is not None and running[1].stdout.readline()
    for process in (*running, up.process):
        house.descendants(process)
        wait_until_sync(lambda process=process: is_ended_by_signals(process), "it ends")
        assert process.returncode == 0
    house.nothing_is_left()
    assert "Traceback" not in house.said


def is_ended_by_signals(process: subprocess.Popen[str]) -> bool:
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    return process.poll() is not None


def status(up: Up, path: str, body: bytes | None = None, timeout: float = 60) -> int:
    """Return the status of the answer; 0 for none."""
    headers = {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(up.url + path, body, headers), timeout=timeout
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, HTTPException):
        return 0
