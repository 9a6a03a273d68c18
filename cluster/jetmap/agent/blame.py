"""Why a chunk ended with its worker: which item is to blame, if any."""

from __future__ import annotations

from dataclasses import dataclass

from jetmap.wire.messages import Crash

from .worker_process import Death
from .worker_queue import Given


@dataclass(frozen=True)
class Order:
    """Why we killed a worker, or let it go: for which item of which chunk."""

    reason: str
    given: Given | None = None
    item: int | None = None
    beside: str = ""  # What to say behind the timeout.


def crash_of(given: Given, death: Death, item: int | None, order: Order | None, host: str) -> Crash:
    """Of the chunk in which the worker died. item: that it was in."""
    if order is None:
        message = f"the worker {death} in this item; its memory peaked at {_mib(death.peak_memory)}"
        return Crash(item, "died", message, death.signal, death.exit_code, death.peak_memory, host)
    if order.reason == "timeout" and order.given is given and order.item == item is not None:
        message = (
            f"it computed for longer than its timeout of {given.held.head.timeout:g} s"
            f"{order.beside}; its worker was replaced"
        )
        return Crash(item, "timeout", message, host=host)
    # Killed for an item that it had just finished, or for none: nobody is to blame.
    return Crash(None, "stopped", "the worker was stopped", host=host)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
