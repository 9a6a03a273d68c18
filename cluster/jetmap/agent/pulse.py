"""Repeat an agent's steps, with one timer for all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from jetmap.background import Background

logger = logging.getLogger(__name__)

EARLY_SECONDS = 0.1  # Seconds before its time at which a step runs with another one.


@dataclass
class PulseStep:
    """A step that is repeated.

    Attributes:
        seconds: Time from one run to the next.
        run: Does it.
        is_urgent: Whether it wakes the agent; otherwise it runs when the next urgent step does.
        beside: Whether it runs in a task of its own, and only while it is urgent.
        task: Its last run, if it runs so.
        due: When it runs next.
    """

    seconds: float
    run: Callable[[], Awaitable[None]]
    is_urgent: Callable[[], bool]
    beside: bool
    task: asyncio.Task[None] | None = None
    due: float = 0.0


def always() -> bool:
    return True


class Pulse:
    """The steps that an agent repeats. One at least must always be urgent.

    A step that fails is logged and repeated: without leases and claims, all chunks would be lost.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._steps: list[PulseStep] = []

    def add(
        self,
        seconds: float,
        run: Callable[[], Awaitable[None]],
        is_urgent: Callable[[], bool] = always,
    ) -> None:
        """Repeat a step that holds up the others, so it must not wait for answers."""
        self._steps.append(PulseStep(seconds, run, is_urgent, beside=False))

    def add_beside(
        self, seconds: float, run: Callable[[], Awaitable[None]], is_wanted: Callable[[], bool]
    ) -> None:
        """Repeat a step that may take long, in a task of its own, while it is wanted."""
        self._steps.append(PulseStep(seconds, run, is_wanted, beside=True))

    async def run(self) -> None:
        """Repeat the steps, until cancelled."""
        now = time.monotonic()
        for step in self._steps:
            step.due = now + step.seconds
        while True:
            due = min(step.due for step in self._steps if step.is_urgent())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            for step in self._steps:
                if step.due > now + EARLY_SECONDS:
                    continue
                step.due = now + step.seconds
                if not step.beside:
                    await self._run(step)
                elif step.is_urgent() and (step.task is None or step.task.done()):
                    step.task = self._background.spawn(self._run(step), step.run.__name__)

    async def _run(self, step: PulseStep) -> None:
        try:
            await step.run()
        except Exception:
            logger.exception("internal error in %s; the agent goes on", step.run.__name__)
