"""The load that tests of faults put on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import functions
from jetmap import Cluster
from servers import check, outcomes
from waiting import PATIENCE, wait_until


def orders(count: int, bad: dict[int, str]) -> list[tuple[int, str]]:
    """Items of ``functions.hurt``. bad: how some go wrong."""
    return [(n, bad.get(n, "")) for n in range(count)]


class Load:
    """A map that goes on until it is left; then each of its items must have its value."""

    def __init__(self, cluster: Cluster, how: str = "sleep:0.003") -> None:
        self._cluster = cluster
        self._how = how
        self._ended = False
        self._done = 0
        self._task: asyncio.Task[list[Any]] | None = None

    async def goes_on(self, timeout: float = PATIENCE) -> None:
        """Wait until a hundred more items are done."""
        goal = self._done + 100
        await wait_until(lambda: self._done >= goal, "the map goes on", timeout)

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        await self.goes_on()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        assert self._task is not None
        self._ended = True
        if error is not None:
            self._task.cancel()
            return
        check(await self._task, range(self._done))

    async def _run(self) -> list[Any]:
        found = await outcomes(self._cluster.stream(functions.hurt, self._items()), self._count)
        return [outcome.error or outcome.value for outcome in found]

    def _items(self) -> Iterator[tuple[int, str]]:
        number = 0
        while not self._ended:
            yield number, self._how
            number += 1

    def _count(self) -> None:
        self._done += 1
