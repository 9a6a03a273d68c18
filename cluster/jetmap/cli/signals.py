"""What SIGTERM and Ctrl-C do: the first asks, the second demands."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

from .exits import Exit

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_heeding(
    work: Coroutine[Any, Any, T], loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Runs ``work``, which heeds a ``Stop`` and with which the process ends.

    A signal that comes behind it asks for what is being done, and must not end it otherwise.
    """
    with asyncio.Runner(loop_factory=loop) as runner:
        try:
            return runner.run(work)
        finally:
            for number in SIGNALS:
                # Not what the loop leaves behind when it is closed: the signal's default.
                runner.get_loop().remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)


class Stop:
    """Waits for the signals of the running loop's process.

    asked: set by the first SIGTERM or SIGINT; demanded: by the second. by: the first one.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.demanded = asyncio.Event()
        self.by: signal.Signals | None = None
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.ask, number)

    def ask(self, number: signal.Signals | None = None) -> None:
        """The same as a signal."""
        if self.asked.is_set():
            self.demanded.set()
        self.by = self.by or number
        self.asked.set()


async def unless_stopped(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives; a signal cancels it, and then this raises the command's exit."""
    stop = Stop()
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.asked.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        raise typer.Exit(Exit.INTERRUPTED)
    finally:
        stopping.cancel()


async def first(*events: asyncio.Event, timeout: float | None = None) -> bool:
    """Waits until one of the events is set; whether one is, in ``timeout`` seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return any(event.is_set() for event in events)
