"""Functions that raise a number of times for each item; the calls are counted in files."""

from __future__ import annotations

import time
from pathlib import Path

from jetmap import task


class Busy(ConnectionError):
    """Worth another try."""


def calls(log: Path, item: int) -> int:
    """Count the calls so far for an item."""
    file = log / str(item)
    return len(file.read_text().splitlines()) if file.exists() else 0


def _raise_at_first(item: int, log: str) -> int:
    with (Path(log) / str(item)).open("a") as file:
        file.write("call\n")
    if item < 0:
        raise KeyError(item)
    if calls(Path(log), item) <= item % 10:
        raise Busy(item)
    return item


@task(name="flaky.thrice", retries=2, retry_on=Busy, backoff=0.02)
def thrice(item: int, *, log: str) -> int:
    """Succeed at the third call at the latest, if the item ends with 0, 1 or 2."""
    return _raise_at_first(item, log)


@task(name="flaky.counted")
def counted(item: int, *, log: str) -> int:
    """Fail at the first calls, as many as the item's last digit, each after a moment."""
    time.sleep(0.1)
    return _raise_at_first(item, log)


@task(name="flaky.handed", retries=1, backoff=3.0)
def handed(item: int, *, log: str) -> int:
    """Wait for a moment between two calls."""
    return _raise_at_first(item, log)


@task(name="flaky.patient", retries=3, backoff=30.0)
def patient(item: int, *, log: str) -> int:
    """Wait for long between two calls."""
    return _raise_at_first(item, log)
