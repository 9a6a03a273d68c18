"""Functions that take a list, and note in a file what each call got."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from jetmap import task

BAD, DEADLY = -1, -9


def note(log: str, items: list[int]) -> None:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {' '.join(map(str, items))}\n")


def calls(log: Path) -> list[tuple[int, list[int]]]:
    """Return the calls that a file has: the process of each, and its items."""
    if not log.exists():
        return []
    lines = [list(map(int, line.split())) for line in log.read_text("utf-8").splitlines()]
    return [(pid, items) for pid, *items in lines]


@task(name="batches.tenfold", batch=64, linger=0.25, attempts=1)
def tenfold(items: list[int], *, log: str) -> list[int]:
    note(log, items)
    if BAD in items:
        raise ValueError(f"{BAD} is bad")
    if DEADLY in items:
        os.kill(os.getpid(), signal.SIGKILL)
    return [10 * item for item in items]


@task(name="batches.gated", batch=8, linger=0.25)
def gated(items: list[int], *, log: str) -> list[int]:
    note(log, items)
    while not Path(f"{log}.open").exists():
        time.sleep(0.01)
    return [10 * item for item in items]


@task(name="batches.slow_to_die", batch=8)
def slow_to_die(items: list[int], *, log: str, deadly: int) -> list[int]:
    """Kill the worker in the first call of the deadly item, once those behind it run elsewhere."""
    note(log, items)
    died = Path(f"{log}.died")
    if deadly in items and not died.exists():
        died.touch()
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline and not any(
            items[-1] + 1 in others for _, others in calls(Path(log))
        ):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return [10 * item for item in items]
