"""A process that only sleeps, and writes down when it was not let run in time.

Where it does not get to run, nobody does: virtual machines stand still for seconds now and then,
and a busy machine has a queue. ``python -m chaos.lag FILE``: a line for each such time, its begin
and its end.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from .faults import STALL, Fault

SLEEP = 0.02
NOTED = 0.1  # Seconds too late that are worth a line.


def main(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    parent = os.getppid()
    while os.getppid() == parent:
        before = time.monotonic()
        time.sleep(SLEEP)
        now = time.monotonic()
        if now - before - SLEEP > NOTED:
            os.write(file, f"{before + SLEEP:.3f} {now:.3f}\n".encode())


def stalls(path: Path) -> list[Fault]:
    """Read the lags that were written down."""
    if not path.exists():
        return []
    times = [line.split() for line in path.read_text().splitlines()]
    return [Fault(STALL, float(a), float(b)) for a, b in times]


if __name__ == "__main__":
    main(sys.argv[1])
