"""The functions of the soak's workers. Each execution is noted before it computes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.support.going_wrong import go_wrong

from jetmap import task

from .runs import AGENT

# An item: its number, microseconds of compute, how it goes wrong ("" for not), bytes of text in
# its value. The value: the number, a mixture of its digits, the text.
Item = tuple[int, int, str, int]
# The same, and the name of its map: a batch has items of several.
NamedItem = tuple[int, int, str, int, str]
Value = tuple[int, int, str]

_notes: dict[str, int] = {}

TICK = 0.2  # Seconds between the signs of life of an item that takes long.
TOO_MUCH = 64 * 2**30  # Bytes, beyond the agents' --worker-memory.
TABLE = bytes(range(256)) * 12_000  # The value that callers put.


@task
def steady(item: Item, *, log: str, map: str, table: bytes | None = None) -> Value:
    """Items that compute, or raise."""
    if table is not None and table[::1001] != TABLE[::1001]:
        raise RuntimeError(f"another table was put than this one of {len(table)} bytes")
    return _run(item, log, map)


@task
def fragile(item: Item, *, log: str, map: str) -> Value:
    """Items that may take their worker with them."""
    return _run(item, log, map)


@task(timeout=1.5)
def bounded(item: Item, *, log: str, map: str) -> Value:
    """Items that may never end."""
    return _run(item, log, map)


@task(batch=16, linger=0.01)
def together(items: list[NamedItem], *, log: str) -> list[Value]:
    """Items that share calls, also with those of other maps."""
    at = time.monotonic()
    for number, _, how, _, map in items:
        _note(log, map, number, how, at)
    values = []
    for number, micros, how, size, map in items:
        _compute(micros * 1e-6, log, map, number)
        if how:
            _go_wrong(how, number, log, map)
        values.append(_value(number, size))
    return values


def _run(item: Item, log: str, map: str) -> Value:
    number, micros, how, size = item
    _note(log, map, number)
    with _child(log, map, number) if how == "beside" else nullcontext():
        _compute(micros * 1e-6, log, map, number)
    if how and how != "beside":
        _go_wrong(how, number, log, map)
    return _value(number, size)


def _value(number: int, size: int) -> Value:
    text = f"{number:x}."
    return number, number * 2654435761 % 2**32, (text * (size // len(text) + 1))[:size]


def _compute(seconds: float, log: str, map: str, number: int) -> None:
    """Items that take long cost the machine nothing."""
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        if seconds >= 0.02:
            time.sleep(min(left, TICK))
            if left > TICK:
                _note(log, map, number, "tick")


@contextmanager
def _child(log: str, map: str, number: int) -> Iterator[None]:
    """A process of the item's own. It has to end with the worker, however that ends."""
    # (Its agent may be killed before the note is written.)
    environment = os.environ | {AGENT: str(os.getppid())}
    with subprocess.Popen(["sleep", "1000"], env=environment) as child:
        _note(log, map, number, str(child.pid))
        try:
            yield
        finally:
            child.kill()


def _note(log: str, map: str, number: int, what: str = "", at: float | None = None) -> None:
    """One line, in a file of this worker's own, named by agent and worker. what: a tick, or the
    pid of a child; else an execution begins, of an item that goes wrong in this way. at: when,
    the same for all items of a call."""
    descriptor = _notes.get(log)
    if descriptor is None:
        name = f"{os.getppid()}-{os.getpid()}-{time.monotonic_ns()}.runs"
        path = str(Path(log) / name)
        descriptor = _notes[log] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = f"{map} {number} {time.monotonic() if at is None else at:.4f} {what}"
    os.write(descriptor, line.rstrip().encode() + b"\n")


def _go_wrong(how: str, number: int, log: str, map: str) -> None:
    match how:
        case "once" | "agent-once":
            mark = Path(log) / f"{map}-{number}.once"
            if mark.exists():
                return
            mark.touch()
            if how == "once":
                os._exit(5)
            _kill_agent(log)
        case "agent":
            _kill_agent(log)
        case "raise":
            go_wrong(f"raise:no {number}")
        case "memory":
            go_wrong(f"memory:{TOO_MUCH}")
        case "popen":  # It never ends, and neither does its child.
            with _child(log, map, number):
                time.sleep(1000)
        case "fork":
            if (child := os.fork()) == 0:
                time.sleep(1000)
                os._exit(0)
            _note(log, map, number, str(child))
            os._exit(6)
        case _:
            go_wrong(how)


def _kill_agent(log: str) -> None:
    """Kill the agent too, as a kernel does that ends a whole container because of one item."""
    (Path(log) / f"{os.getppid()}.killed").touch()
    go_wrong("agent")
