"""A machine, or an account, that allows processes too little memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from house import House
from jetmap.cli.exits import Exit
from waiting import PATIENCE

LIMITED = """
import os, resource, sys
size = 300_000_000
resource.setrlimit(resource.RLIMIT_AS, (size, size))
os.execv(sys.executable, [sys.executable, "-m", "jetmap.cli", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_limit_under_which_the_server_cannot_start_is_told_in_one_line(house: House) -> None:
    (house.directory / "numbers").write_text("1\n")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "map", "tasks.py:double", "numbers"],
        cwd=house.directory,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == Exit.BROKER
    assert "Traceback" not in done.stderr and ".go:" not in done.stderr, done.stderr
    assert "nats-server exited with code 2\n  fatal error: " in done.stderr
    house.nothing_is_left()
