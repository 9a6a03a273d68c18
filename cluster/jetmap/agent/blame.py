"""Find the item to blame, if any, for a chunk that ended with its worker."""

from __future__ import annotations

from dataclasses import dataclass

from jetmap.wire.messages import Crash

from .worker_process import Death
from .worker_queue import QueueEntry


@dataclass(frozen=True)
class KillReason:
    """The reason for which an agent killed a worker, or let it go."""

    reason: str  # "timeout" or "stopped".
    entry: QueueEntry | None = None  # For a timeout: the chunk,
    item: int | None = None  # and its item.
    beside: str = ""  # Text behind the timeout in the message.


def crash_of(
    entry: QueueEntry, death: Death, item: int | None, killed: KillReason | None, host: str
) -> Crash:
    """Describe the end of the chunk in which the worker died. item: the one in progress."""
    if killed is None:
        message = f"the worker {death} in this item; its memory peaked at {_mib(death.peak_memory)}"
        return Crash(item, "died", message, death.signal, death.exit_code, death.peak_memory, host)
    if killed.reason == "timeout" and killed.entry is entry and killed.item == item is not None:
        message = (
            f"it computed for longer than its timeout of {entry.held.head.timeout:g} s"
            f"{killed.beside}; its worker was replaced"
        )
        return Crash(item, "timeout", message, host=host)
    # Killed for an item that it had just finished, or for none: no item is to blame.
    return Crash(None, "stopped", "the worker was stopped", host=host)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
