"""A machine, or an account, that allows processes too little."""

from __future__ import annotations

import subprocess
import sys

import pytest

from house import House
from jetmap.cli.exits import Exit
from waiting import PATIENCE

LIMITED = """
import os, resource, sys
limit, size = getattr(resource, sys.argv.pop(1)), int(sys.argv.pop(1))
resource.setrlimit(limit, (size, size))
os.execv(sys.executable, [sys.executable, "-m", "jetmap.cli", *sys.argv[1:]])
"""


def limited(house: House, limit: str, size: int) -> subprocess.CompletedProcess[str]:
    """Map the file numbers under a limit of the system."""
    (house.directory / "numbers").write_text("1\n")
    return subprocess.run(
        [sys.executable, "-c", LIMITED, limit, str(size), "map", "tasks.py:double", "numbers"],
        cwd=house.directory,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_limit_under_which_the_server_cannot_start_is_told_in_one_line(house: House) -> None:
    done = limited(house, "RLIMIT_AS", 300_000_000)
    assert done.returncode == Exit.BROKER
    assert "Traceback" not in done.stderr and ".go:" not in done.stderr, done.stderr
    assert "nats-server exited with code 2\n  fatal error: " in done.stderr
    house.nothing_is_left()


def test_workers_that_cannot_start_under_a_limit_start_once_it_is_raised(house: House) -> None:
    """Those of the next program, too, though it comes before their keeper would have ended."""
    done = limited(house, "RLIMIT_FSIZE", 1000)
    assert done.returncode == Exit.WORKERS, done.stderr
    done = house.run("map", "tasks.py:double", "numbers")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
