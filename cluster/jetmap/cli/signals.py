"""Stop a command on a signal: the first requests it, a second SIGTERM or Ctrl-C forces it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import typer

from jetmap.background import beside
from jetmap.machine import require_descriptors

from .exits import Exit, say

T = TypeVar("T")
NewLoop = Callable[[], asyncio.AbstractEventLoop]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LEAVE_SECONDS = 10.0  # Seconds to close connections after a signal.
FORCED_SECONDS = 3.0  # Seconds to end after a second signal.
LEAST_FILES = 16  # Files that a command opens at least, with its event loop.


class StopRequested(Exception):  # noqa: N818
    """A signal came before the command had begun its work."""


class Watchdog:
    """End the process by force if it does not end by itself after a signal.

    A silent broker, a slow name server or a blocked event loop may hold it up.

    Args:
        patience: Seconds after the first signal.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience

    def on_request(self) -> None:
        self._arm(self._patience)

    def on_force(self) -> None:
        self._arm(FORCED_SECONDS)

    def _arm(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._end, [seconds])
        timer.daemon = True  # It also covers what Python does at exit.
        timer.start()

    def _end(self, seconds: float) -> None:
        try:
            say(f"not ended {seconds:g} s after the signal; ending now")
        finally:
            os._exit(Exit.INTERRUPTED)


_watchdog: Watchdog | None = None  # Watchdog of the command that this process runs.


def run(
    work: Coroutine[Any, Any, T], loop: NewLoop | None = None, *, patience: float = LEAVE_SECONDS
) -> T:
    """Run a command that makes a ``Stop`` of its own; the process ends when it returns.

    Args:
        patience: Seconds after the first signal until the process ends by force.
    """
    global _watchdog
    _need_files(work)
    _watchdog = Watchdog(patience)
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            try:
                return runner.run(work)
            finally:
                # A signal now requests what is happening anyway. Closing the loop would restore the
                # default, which ends the process with another exit code.
                for number in SIGNALS:
                    runner.get_loop().remove_signal_handler(number)
                    signal.signal(number, signal.SIG_IGN)
    finally:
        _watchdog = None


def run_cancellable(work: Coroutine[Any, Any, T], loop: NewLoop | None = None) -> T:
    """Run a command that a signal cancels; it then exits with the code for that."""
    _need_files(work)  # Here, too: ``run`` can only drop the coroutine around it.

    async def cancellable() -> T:
        try:
            return await Stop().cancel_on_request(work)
        except StopRequested:
            raise typer.Exit(Exit.INTERRUPTED) from None

    return run(cancellable(), loop)


def _need_files(work: Coroutine[Any, Any, Any]) -> None:
    """Raise OSError, and drop this work, if a command cannot open its files.

    An event loop that cannot begin cannot be closed either.
    """
    try:
        require_descriptors(LEAST_FILES)
    except OSError:
        work.close()
        raise


class Stop:
    """The signals that the running loop's process has received.

    Attributes:
        requested: Set by the first SIGTERM, SIGINT or SIGHUP (the terminal is closed).
        forced: Set by a second SIGTERM or SIGINT. A closed terminal sends SIGHUP, and its shell
            often sends another.
        by: The first signal.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        self.by: signal.Signals | None = None
        self._watchdog = _watchdog
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if not _is_under_nohup(number):
                loop.add_signal_handler(number, self.on_signal, number)

    def on_signal(self, number: signal.Signals | None = None) -> None:
        is_second = self.requested.is_set()
        if is_second and number == signal.SIGHUP:
            return
        if is_second:
            self.forced.set()
        if self._watchdog is not None:
            (self._watchdog.on_force if is_second else self._watchdog.on_request)()
        self.by = self.by or number
        self.requested.set()

    async def cancel_on_request(self, work: Awaitable[T]) -> T:
        """Await ``work``, which a signal cancels.

        Raises StopRequested once the cancelled work has ended, or at the second signal.
        """
        working = asyncio.ensure_future(work)
        requested = asyncio.ensure_future(self.requested.wait())
        forced = asyncio.ensure_future(self.forced.wait())
        try:
            await asyncio.wait({working, requested}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.wait({working, forced}, return_when=asyncio.FIRST_COMPLETED)
            raise StopRequested
        finally:
            if working.done() and not working.cancelled():
                working.exception()  # Retrieve it: an error while it was cancelled is not news.
            working.cancel()
            requested.cancel()
            forced.cancel()


def _is_under_nohup(number: signal.Signals) -> bool:
    """Return True for SIGHUP in a command that is to outlive its terminal."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


async def wait_for_any(*events: asyncio.Event, timeout: float | None = None) -> bool:
    """Wait until one of the events is set. Returns False after ``timeout`` seconds."""
    async with beside(*(event.wait() for event in events)) as waiting:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    return any(event.is_set() for event in events)
