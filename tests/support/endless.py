"""Functions with a timeout, and values whose decoding or encoding never ends in a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from jetmap import task
from jetmap.worker import main

BAD = 21


def hang() -> None:
    while True:
        time.sleep(60)


class Endless:
    """An object that cannot be loaded, or pickled."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __reduce__(self) -> Any:
        if self.when == "dumps":
            hang()
        return _made, (self.when,)


def _made(when: str) -> Endless:
    if when == "loads":
        hang()
    return Endless(when)


@dataclass
class Checked:
    n: int
    hangs: bool = False

    def __post_init__(self) -> None:
        if self.hangs and main.in_worker:
            hang()


@task(timeout=0.5)
def kept(x):  # type: ignore[no-untyped-def]
    return x


@task(timeout=0.5)
def made(n):  # type: ignore[no-untyped-def]
    return Endless("dumps") if n == BAD else n


@task(timeout=0.5)
def number(x: Checked) -> int:
    return x.n


@task(timeout=0.5, batch=2)
def batched(xs):  # type: ignore[no-untyped-def]
    return xs
