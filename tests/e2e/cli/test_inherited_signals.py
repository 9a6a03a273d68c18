"""Commands of a program that blocks signals, or ignores SIGCHLD, which its children inherit."""

from __future__ import annotations

import subprocess
import sys

from house import UP, House, Up, runs
from waiting import PATIENCE, wait_until_sync

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.executable, [sys.executable, "-m", "jetmap.cli", *sys.argv[1:]])
"""


def start(house: House, *arguments: str) -> subprocess.Popen[str]:
    with (house.directory / "stderr").open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=house.directory,
            env=house.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


def test_an_embedded_cluster_ends_with_its_last_user(house: House) -> None:
    (house.directory / "numbers").write_text("1\n2\n")
    process = start(house, "map", "tasks.py:double", "numbers")
    assert process.communicate(timeout=PATIENCE)[0] == "2\n4\n", house.said
    house.nothing_is_left()


def test_up_sees_what_dies_and_obeys_signals(house: House) -> None:
    process = start(house, *UP)
    try:
        up = Up(house, process)
        gateway = up.child("api")
        gateway.kill()
        wait_until_sync(lambda: not runs(gateway), "it is gone")
        wait_until_sync(lambda: up.get("/readyz")[0] == 200, "there is another one")
        assert "the gateway died (SIGKILL)" in house.said
        assert up.stop() == 0
        house.nothing_is_left()
    finally:
        house.descendants(process)
        process.kill()
        process.communicate()
