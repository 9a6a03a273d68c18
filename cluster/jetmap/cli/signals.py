"""What SIGTERM and Ctrl-C do: the first asks, the second demands."""

from __future__ import annotations

import asyncio
import signal


class Stop:
    """Waits for the signals of the running loop's process.

    asked: set by the first SIGTERM or SIGINT; demanded: by the second. by: the first one.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.demanded = asyncio.Event()
        self.by: signal.Signals | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask, number)

    def ask(self, number: signal.Signals | None = None) -> None:
        """The same as a signal."""
        if self.asked.is_set():
            self.demanded.set()
        self.by = self.by or number
        self.asked.set()


async def first(*events: asyncio.Event, timeout: float | None = None) -> bool:
    """Waits until one of the events is set; whether one is, in ``timeout`` seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return any(event.is_set() for event in events)
