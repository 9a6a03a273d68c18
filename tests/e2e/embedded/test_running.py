"""Finding the ``up`` of a directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jetmap.embedded.running import find_running

pytestmark = pytest.mark.usefixtures("runtime")

UP = """
import sys
from jetmap.embedded.running import register_up
registration = register_up(sys.argv[1], "nats://127.0.0.1:1", "user", "secret", pool="p")
print("up", flush=True)
sys.stdin.read()
"""


def test_the_one_of_the_pool_is_found_and_a_killed_one_is_not(tmp_path: Path) -> None:
    up = subprocess.Popen(
        [sys.executable, "-c", UP, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert up.stdout is not None
        assert up.stdout.readline() == b"up\n"
        found = find_running(tmp_path, "p")
        assert found is not None and found.pid == up.pid
        assert find_running(tmp_path, "default") is None
    finally:
        up.kill()
        up.communicate()
    assert find_running(tmp_path) is None
