"""Keep something running: start it, watch it, start it again after growing pauses, and end it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable

from .background import beside


class Backoff:
    """The pause before the next attempt: doubled after each failure, up to a limit. No clock.

    Args:
        first: Seconds of the first pause.
        most: Seconds of the longest.
        healthy_after: Seconds that what failed must have lasted for its failure to count as the
            first; None: only ``reset`` begins anew.
    """

    def __init__(self, first: float, most: float, *, healthy_after: float | None = None) -> None:
        self._first = first
        self._most = most
        self._healthy_after = healthy_after
        self.seconds = first

    def grow(self) -> float:
        """Return the pause that is due, and double the next one."""
        due = self.seconds
        self.seconds = min(self._most, due * 2)
        return due

    def after(self, lived: float) -> float:
        """Return the pause that is due after something that lasted ``lived`` seconds failed."""
        if self._healthy_after is not None and lived >= self._healthy_after:
            self.reset()
        return self.grow()

    def reset(self) -> None:
        """Begin again with the first pause."""
        self.seconds = self._first


class Supervisor:
    """Keep something running until ``stop``; end what runs by your own means.

    Args:
        serve: Starts it and awaits its end. Returns how it failed, to pause before the next start,
            or None to start it again at once. What it raises ends ``run``.
        backoff: The pauses.
        on_failure: Called with how it failed and the seconds until the next start.

    Attributes:
        is_stopped: Whether it is started no more.
    """

    def __init__(
        self,
        serve: Callable[[], Awaitable[str | None]],
        backoff: Backoff,
        on_failure: Callable[[str, float], None] = lambda how, pause: None,
    ) -> None:
        self._serve = serve
        self._backoff = backoff
        self._on_failure = on_failure
        self.is_stopped = False
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Start it again whenever it ends, until ``stop``."""
        while not self.is_stopped:
            self._hurry.clear()
            began = time.monotonic()
            failure = await self._serve()
            if failure is None:
                self._backoff.reset()
            elif not self.is_stopped:
                pause = self._backoff.after(time.monotonic() - began)
                self._on_failure(failure, pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._hurry.wait()
                        self._backoff.reset()

    def hurry(self) -> None:
        """Start it without a pause when it has failed, now or next: the cause may be gone."""
        self._hurry.set()

    def stop(self) -> None:
        """Start it no more."""
        self.is_stopped = True
        self._hurry.set()


async def end_process(
    process: asyncio.subprocess.Process,
    grace: float,
    demanded: asyncio.Event | None = None,
    *,
    patience: float = 3.0,
) -> bool:
    """End a process by SIGTERM, or by SIGKILL after ``grace`` seconds; return whether it obeyed.

    Args:
        demanded: Once it is set, SIGTERM is sent again, and the grace is over ``patience`` seconds
            later.
    """
    if process.returncode is not None:
        return True
    _signal(process, signal.SIGTERM)
    events = [demanded] if demanded is not None else []
    async with beside(process.wait(), *(event.wait() for event in events)) as waiting:
        ended = waiting[0]
        await asyncio.wait(waiting, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if demanded is not None and demanded.is_set() and not ended.done():
            _signal(process, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=patience)
        if ended.done():
            return True
        _signal(process, signal.SIGKILL)
        await ended
        return False


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        process.send_signal(number)
