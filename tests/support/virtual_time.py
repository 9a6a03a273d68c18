"""An event loop whose time stands still while it works and jumps while it waits.

A test of an hour of leases, pulls and retries takes as long as its Python takes, and the same
every time: nothing in it depends on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

START = 1_000.0
IDLE_SECONDS = 60.0  # Real seconds without a timer or an event, after which the loop gives up.


class _Selector:
    """Jumps to the next timer where the loop would sleep until it."""

    def __init__(self) -> None:
        self.now = START
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            events = self._real.select(IDLE_SECONDS)
            if not events:
                raise RuntimeError("the test waits for something that never happens")
            return events
        events = self._real.select(0)
        if not events and timeout > 0:
            self.now += timeout
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Make one for each test; ``time.monotonic`` and ``time.time`` follow it inside `run`."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)  # type: ignore[arg-type]

    def time(self) -> float:
        return self._virtual.now

    def skip(self, seconds: float) -> None:
        self._virtual.now += seconds


def run(work: Coroutine[Any, Any, T], *, at_most: float = 600.0) -> T:
    """Run ``work`` in virtual time.

    Raises:
        TimeoutError: It takes longer than ``at_most`` virtual seconds.
    """
    epoch = time.time() - START

    async def bounded() -> T:
        async with asyncio.timeout(at_most):
            return await work

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        with (
            mock.patch("time.monotonic", loop.time),
            mock.patch("time.time", lambda: epoch + loop.time()),
        ):
            return runner.run(bounded())


def pass_time(seconds: float) -> None:
    """Let time pass while the loop does nothing, as while its process is stopped."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.skip(seconds)
