"""Closed standard streams are held, so that no socket gets their descriptors."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, socket, sys
from jetmap.standard_streams import hold_closed

held = hold_closed()
assert hold_closed() == []
with socket.socket() as other:
    assert other.fileno() > 2
null = os.stat(os.devnull)
for fd in range(3):
    assert os.path.samestat(os.fstat(fd), null) or fd not in held
    assert os.get_inheritable(fd)
for fd in held[1:]:  # What is written there is lost, and reading fails.
    assert os.write(fd, b"x") == 1
if held[:1] == [0]:
    try:
        os.read(0, 1)
    except OSError:
        pass
    else:
        sys.exit("it can be read")
sys.exit(10 + sum(1 << fd for fd in held))
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (0, 2), (0, 1, 2)])
def test_streams_that_are_closed_are_held(closed: tuple[int, ...]) -> None:
    close = " ".join(f"{fd}>&-" for fd in closed)
    line = f'exec "$0" -c "$1" {close}'
    done = subprocess.run(["sh", "-c", line, sys.executable, SCRIPT], stderr=subprocess.PIPE)
    assert done.returncode == 10 + sum(1 << fd for fd in closed), done.stderr
