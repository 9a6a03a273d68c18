"""The functions that the end-to-end tests run: well behaved ones, and every kind of bad one.

Cheap to import, because workers that die are started again. Those that need pydantic are in
``typed_functions``.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from going_wrong import go_wrong
from jetmap import task


@dataclass
class Work:
    """value: what comes back. micros: of compute. fails: whether it raises instead."""

    value: int
    micros: int = 0
    fails: bool = False


@dataclass
class Parcel:
    """value: what comes back. micros: of compute. fails: whether it raises instead."""

    value: int | float | str
    micros: int = 0
    fails: bool = False


@dataclass
class Order:
    """number: what comes back. seconds: of compute. how: to go wrong, if at all."""

    number: int
    seconds: float = 0.0
    how: str = ""


@dataclass
class Sum:
    total: float
    parts: tuple[int, ...] = ()


@task
def empty(item: int) -> int:
    """Return the item."""
    return item


@task
def is_prime(n: int) -> bool:
    """Return whether n is a prime number."""
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


@task
def work(item: Work) -> int:
    take(item.micros * 1e-6)
    if item.fails:
        raise ValueError(f"no {item.value}")
    return item.value


@task
def weigh(parcel: Parcel) -> int | float | str:
    take(parcel.micros * 1e-6)
    if parcel.fails:
        raise ValueError(f"no {parcel.value}")
    return parcel.value


@task
def spin(seconds: float) -> float:
    """Computes for so long."""
    take(seconds)
    return seconds


@task
def nap(seconds: float) -> float:
    take(seconds)
    return seconds


@task
def scale(n: int, *, by: int, plus: int = 0) -> int:
    return n * by + plus


@task
def add(parts: tuple[int, ...]) -> Sum:
    return Sum(math.fsum(parts), parts)


@task
def zeros(size: int) -> bytes:
    """Return a value of this number of bytes."""
    return bytes(size)


@task
def echo(data: bytes, *, seconds: float = 0.0) -> bytes:
    """Return the item, after this time."""
    time.sleep(seconds)
    return data


@task
def gate(item: tuple[str, int]) -> bytes:
    """Return a value of this number of bytes, once the named file exists, if there is a name."""
    name, size = item
    while name and not Path(name).exists():
        time.sleep(0.005)  # What opens the gate is another process.
    return bytes(size)


@task
def fill(item: tuple[int, int]) -> int:
    """Return the item's number, after writing to this number of bytes of memory."""
    number, size = item
    held = b"x" * size
    return number + len(held) - size


@task
def measure(text: str, *, beside: str = "") -> int:
    """Return their lengths."""
    return len(text) + len(beside)


@task
def odd_only(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


@task
def unencodable(n: int) -> object:
    """An object that cannot travel, for every tenth item."""
    return object() if n % 10 == 5 else n


@task
def lies(n: int) -> int:
    """Not what the annotation says, for every tenth item."""
    return "text" if n % 10 == 5 else n  # type: ignore[return-value]


@task
def say(text: str) -> str:
    print(text)
    print(f"{text} to stderr", file=sys.stderr)
    return text


@task
def where(item: int) -> str:
    """The name of the host that this ran on."""
    return f"{os.uname().nodename}/{os.getpid()}"


@task
def logged(item: tuple[int, float], *, log: str) -> int:
    """Note the start, with the time and the process, then compute for this time."""
    index, seconds = item
    note(log, index)
    take(seconds)
    return index


@task
def observed(seconds: float, *, times: float = 1.0) -> tuple[int, int, int]:
    """The process, and when the item began and ended there."""
    began = time.monotonic_ns()
    if seconds and times:
        time.sleep(seconds * times)
    return os.getpid(), began, time.monotonic_ns()


@task(max_parallel=1)
def alone(seconds: float) -> tuple[int, int, int]:
    """The same as ``observed``, but never two at once in the whole pool."""
    return observed(seconds)


@task
def wait_for_all(index: int, *, log: str, count: int) -> bool:
    """Item 0 waits for the others to be begun; returns whether all were."""
    note(log, index)
    deadline = time.monotonic() + 300
    while index == 0 and time.monotonic() < deadline:
        if len({line.split()[0] for line in Path(log).read_text().splitlines()}) >= count:
            return True
        time.sleep(0.01)
    return index > 0


@task
def obey(order: Order, *, log: str) -> int:
    """Note the start, compute, and go wrong on demand."""
    note(log, order.number)
    take(order.seconds)
    go_wrong(order.how)
    return order.number


@task
def hurt(item: tuple[int, str]) -> int:
    """The item's number, unless the item says how to go wrong instead."""
    number, how = item
    go_wrong(how)
    return number


@task(timeout=0.4)
def limited(item: tuple[int, str]) -> int:
    """Do as ``hurt`` does, in at most 0.4 seconds."""
    number, how = item
    go_wrong(how)
    return number


@task
def hurt_once(item: tuple[int, str], *, marks: str) -> int:
    """Go wrong the first time that an item is seen, but not the next time."""
    number, how = item
    mark = Path(marks) / str(number)
    if how and not mark.exists():
        mark.touch()
        go_wrong(how)
    return number


@task
def own_cluster(item: int) -> str:
    """Try to start a cluster inside a worker."""
    from jetmap import Cluster

    try:
        Cluster()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def take(seconds: float) -> None:
    """Be busy for this time, which costs the machine nothing."""
    if seconds:
        time.sleep(seconds)


def note(log: str, index: int) -> None:
    """One line in a file that many processes write: the item, the time, the process."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, f"{index} {time.monotonic():.6f} {os.getpid()}\n".encode())
    finally:
        os.close(fd)
