"""Functions that are measured: loops of a given number of turns, the same in every run.

There is one function for each kind of work, because jetmap learns costs by function.
"""

from __future__ import annotations

import os
import time

from jetmap import task


def spin(turns: int) -> int:
    """Keep one core busy for ``turns`` turns of a loop."""
    x = 1
    for i in range(turns):
        x = (x * 1103515245 + i) & 0x7FFFFFFF
    return x


@task
def even(turns: int) -> int:
    """Items of one size, about 1.5 ms."""
    return spin(turns)


@task
def uneven(turns: int) -> int:
    """Items of very different sizes, about 6 ms in the mean."""
    return spin(turns)


@task
def tiny(turns: int) -> int:
    """Items that cost less than sending them singly, about 15 µs."""
    return spin(turns)


def submitted(turns: int) -> int:
    """Run a call of ``Executor.submit``, which need not be a task."""
    return spin(turns)


def wait(seconds: float) -> None:
    """Occupy a worker."""
    time.sleep(seconds)


@task
def has_no_divisor(n: int) -> bool:
    """Items that cost almost nothing or 20 ms, depending on the number; the README's function."""
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


@task
def heavy(turns: int) -> int:
    """Compute an item; a few items take most of the time."""
    return spin(turns)


@task
def short(turns: int) -> int:
    """Items of 1 ms, in many short maps."""
    return spin(turns)


@task
def increment(n: int) -> int:
    """Items that cost next to nothing, in long lists."""
    return n + 1


@task
def send_back(data: bytes) -> bytes:
    """Payloads there and back."""
    return data


@task
def nothing(n: int) -> int:
    """Item that costs nothing, to measure the way there and back."""
    return n


@task
def weighed(turns: int) -> float:
    """Items of 1.5 ms, which return the CPU seconds that they took."""
    began = time.thread_time()
    spin(turns)
    return time.thread_time() - began


RAISES, KILLS = -1, -2


@task
def risky(turns: int) -> int:
    """A loop; or an error, or the end of its process."""
    if turns == RAISES:
        raise ValueError("this item raises")
    if turns == KILLS:
        os._exit(1)
    return spin(turns)
