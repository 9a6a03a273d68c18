"""Signals of a command: the first SIGTERM or Ctrl-C asks it to end, the second demands it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import typer

from .exits import Exit, say

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LEAVE_SECONDS = 10.0  # For a command that only has to close its connections after a signal.
DEMANDED_SECONDS = 3.0  # For any command after a second signal.


class Asked(Exception):  # noqa: N818 - it is no error
    """A signal came before the command had begun its work."""


class Watchdog:
    """Ends the process where it does not end by itself after a signal, whatever holds it up: a
    broker that is silent, a name that is looked up, a blocked loop."""

    def __init__(self, patience: float) -> None:
        self._patience = patience

    def asked(self) -> None:
        self._arm(self._patience)

    def demanded(self) -> None:
        self._arm(DEMANDED_SECONDS)

    def _arm(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._end, [seconds])
        timer.daemon = True  # It also watches over what Python does at its exit.
        timer.start()

    def _end(self, seconds: float) -> None:
        try:
            say(f"not ended {seconds:g} s after the signal; ending now")
        finally:
            os._exit(Exit.INTERRUPTED)


_watchdog: Watchdog | None = None  # Of the command that this process runs.


def run_heeding(
    work: Coroutine[Any, Any, T],
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    *,
    patience: float = LEAVE_SECONDS,
) -> T:
    """Run ``work``, which heeds a ``Stop`` and with which the process ends.

    patience: seconds after the first signal until the process ends by force. A signal that comes
    behind the work asks for what is being done, and must not end it otherwise.
    """
    global _watchdog
    _watchdog = Watchdog(patience)
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            try:
                return runner.run(work)
            finally:
                for number in SIGNALS:
                    # Not what the loop leaves behind when it is closed: the signal's default.
                    runner.get_loop().remove_signal_handler(number)
                    signal.signal(number, signal.SIG_IGN)
    finally:
        _watchdog = None


class Stop:
    """The signals of the running loop's process.

    asked: set by the first SIGTERM or SIGINT; demanded: by the second. by: the first one.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.demanded = asyncio.Event()
        self.by: signal.Signals | None = None
        self._watchdog = _watchdog
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.ask, number)

    def ask(self, number: signal.Signals | None = None) -> None:
        """The same as a signal."""
        if self.asked.is_set():
            self.demanded.set()
        if self._watchdog is not None:
            (self._watchdog.demanded if self.asked.is_set() else self._watchdog.asked)()
        self.by = self.by or number
        self.asked.set()

    async def unless_asked(self, work: Awaitable[T]) -> T:
        """Await ``work``; a signal cancels it. Raises Asked then, once it has ended, or at once
        after a second signal."""
        working = asyncio.ensure_future(work)
        asking = asyncio.ensure_future(self.asked.wait())
        demanding = asyncio.ensure_future(self.demanded.wait())
        try:
            await asyncio.wait({working, asking}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.wait({working, demanding}, return_when=asyncio.FIRST_COMPLETED)
            raise Asked
        finally:
            if working.done() and not working.cancelled():
                working.exception()  # Seen: what it meets on its way out says nothing new.
            working.cancel()
            asking.cancel()
            demanding.cancel()


async def unless_stopped(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives; a signal cancels it, and then this raises the command's exit."""
    try:
        return await Stop().unless_asked(work)
    except Asked:
        raise typer.Exit(Exit.INTERRUPTED) from None


def run_unless_stopped(
    work: Coroutine[Any, Any, T], loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command that a signal ends, with the exit code for that."""
    return run_heeding(unless_stopped(work), loop)


async def first(*events: asyncio.Event, timeout: float | None = None) -> bool:
    """Waits until one of the events is set; whether one is, in ``timeout`` seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return any(event.is_set() for event in events)
