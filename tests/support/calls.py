"""Functions and classes that executors call in tests."""

from __future__ import annotations

import builtins
import multiprocessing
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

state: Any = None


@dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()
    seen: set[str] = field(default_factory=set)

    def moved(self, by: int) -> Point:
        self.x += by
        return self

    @classmethod
    def at(cls, x: int) -> Point:
        return cls(x)


def leaves_work(item: int) -> bool:
    """Return whether the worker is going to do something after this item."""
    frame: Any = sys._getframe()
    while "aftermath" not in frame.f_locals:
        frame = frame.f_back
    due: bool = frame.f_locals["aftermath"].due
    return due


class Adder:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, n: int) -> int:
        self.by += 1  # Of the worker's copy.
        return n + self.by


class NoPickle:
    def __reduce__(self) -> Any:
        raise pickle.PicklingError("not this one")


def fail_to_load(*_: Any) -> Any:
    raise pickle.UnpicklingError("no way in")


class NoUnpickle:
    def __reduce__(self) -> Any:
        return fail_to_load, ()


class Awkward(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def add(a: int, b: int = 0) -> int:
    return a + b


def give(value: Any) -> Any:
    return value


def pid(_: object = None) -> int:
    return os.getpid()


def wait_for_file(path: str) -> str:
    """Compute until a file exists, at most five minutes."""
    deadline = time.monotonic() + 300
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return path


def link(before: str, after: str) -> str:
    """Make a file once the one before it is there."""
    wait_for_file(before)
    Path(after).touch()
    return after


def meet(directory: str, number: int, parties: int) -> int:
    """Wait until as many calls as there are parties run at the same time."""
    here = Path(directory)
    (here / str(number)).touch()
    deadline = time.monotonic() + 300
    while (there := len(list(here.iterdir()))) < parties and time.monotonic() < deadline:
        time.sleep(0.005)
    return there


def raise_value_error(n: int) -> None:
    raise ValueError(f"no {n}")  # the line of the error


def raise_awkward() -> None:
    raise Awkward(1, 2)


def fail_at(n: int, bad: int = 3) -> int:
    if n == bad:
        raise ZeroDivisionError(n)
    return n


def die(code: int = 3) -> None:
    os._exit(code)


def die_once_at(last: int, mark: Path, n: int) -> int:
    """Kill this worker for one number, the first time."""
    if n == last and not mark.exists():
        mark.touch()
        killed()
    return n


def wait_for_the_next(at: int, mark: Path, n: int) -> int:
    """Wait for the next call, in the one at ``at``."""
    if n == at + 1:
        mark.touch()
    deadline = time.monotonic() + 100.0
    while n == at and not mark.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"call {n + 1} does not begin")
        time.sleep(0.001)
    return n


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    sys.exit(4)


def no_unpickle() -> NoUnpickle:
    return NoUnpickle()


def no_pickle() -> NoPickle:
    return NoPickle()


def total(array: np.ndarray[Any, Any]) -> float:
    result = float(array.sum())
    array[:1] = -1  # Only this call's copy changes.
    return result


def ones(count: int) -> np.ndarray[Any, Any]:
    return np.ones(count)


def set_state(value: Any) -> None:
    global state
    state = value


def call_in_a_call(n: int) -> int:
    from jetmap import Executor

    with Executor(1) as executor:
        return executor.submit(add, n, 1).result()


def get_state() -> Any:
    return state


def fail_to_start(path: str = "") -> None:
    raise LookupError("no model")


def put_in(queue: Any, value: int) -> int:
    queue.put(value)
    return value


def on_sigterm(ready: str, ended: str) -> None:
    """Write a file when SIGTERM comes."""

    def handle(*_: Any) -> None:
        Path(ended).touch()
        os._exit(0)

    signal.signal(signal.SIGTERM, handle)
    Path(ready).touch()
    time.sleep(30)


def get_state_of(_: object) -> Any:
    return state


def filled(n: int) -> np.ndarray[Any, Any]:
    return np.full(200_000, n % 100, np.uint8)


def first_of(array: np.ndarray[Any, Any]) -> int:
    return int(array[0])


def send_over(end: Any, value: Any) -> None:
    end.send(value)


def read_shared(name: str) -> int:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(name)
    try:
        return bytes(memory.buf or b"")[0]
    finally:
        memory.close()


def tracker() -> tuple[int, int]:
    """Return which pipe leads to the resource tracker of this process."""
    from multiprocessing import resource_tracker

    found = os.fstat(resource_tracker.getfd() or -1)
    return found.st_dev, found.st_ino


class RaisesWhenLoaded:
    """Raise a builtin exception of this name where it is loaded."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: dict[str, str]) -> None:
        raise getattr(builtins, state["name"])


def process_name() -> str:
    return multiprocessing.current_process().name


def fork_and_wait(item: int) -> str:
    """Leave the call twice: first in a forked child, then in this process."""
    if (child := os.fork()) == 0:
        return "child"
    assert os.waitpid(child, 0)[1] == 0
    return "parent"


class _Number(Exception):
    def __reduce__(self) -> Any:
        return int, ("5",)


class _Locked(Exception):
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt("cannot be packed")


def raise_odd_name() -> None:
    """Raise an exception whose text UTF-8 cannot hold."""
    raise ValueError("bad name \udcff")


def raise_a_number() -> None:
    raise _Number("orig")


def raise_unpicklable() -> None:
    raise _Locked("orig")
