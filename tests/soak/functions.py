"""What the soak's workers run. Each execution is noted before it computes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from jetmap import task

from .going_wrong import go_wrong

# An item: its number, microseconds of compute, how it goes wrong ("" for not), bytes of text in
# its value. The value: the number, a mixture of its digits, the text.
Item = tuple[int, int, str, int]
Value = tuple[int, int, str]

_notes: dict[str, int] = {}


@task(attempts=6)
def steady(item: Item, *, log: str, map: str) -> Value:
    """Items that compute, or raise."""
    return _run(item, log, map)


@task
def fragile(item: Item, *, log: str, map: str) -> Value:
    """Items that may take their worker with them."""
    return _run(item, log, map)


@task(timeout=1.5, attempts=6)
def bounded(item: Item, *, log: str, map: str) -> Value:
    """Items that may never end."""
    return _run(item, log, map)


def _run(item: Item, log: str, map: str) -> Value:
    number, micros, how, size = item
    _note(log, map, number)
    if micros >= 20_000:
        time.sleep(micros * 1e-6)  # It computes, and costs the machine nothing.
    else:
        end = time.perf_counter() + micros * 1e-6
        while time.perf_counter() < end:
            pass
    if how:
        _go_wrong(how, number, log, map)
    text = f"{number:x}."
    return number, number * 2654435761 % 2**32, (text * (size // len(text) + 1))[:size]


def _note(log: str, map: str, number: int) -> None:
    """One line, in a file of this worker's own, named by agent and worker."""
    descriptor = _notes.get(log)
    if descriptor is None:
        name = f"{os.getppid()}-{os.getpid()}-{time.monotonic_ns()}.runs"
        path = str(Path(log) / name)
        descriptor = _notes[log] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{map} {number} {time.monotonic():.4f}\n".encode())


def _go_wrong(how: str, number: int, log: str, map: str) -> None:
    if how == "once":
        mark = Path(log) / f"{map}-{number}.once"
        if mark.exists():
            return
        mark.touch()
        os._exit(5)
    go_wrong(f"raise:no {number}" if how == "raise" else how)
