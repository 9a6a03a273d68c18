"""Let the caller's process track the shared memory that its calls open, as a process pool does.

``multiprocessing`` has a process for that, the resource tracker, which removes what is left when
all processes that it serves have ended. A tracker of the worker's own would remove memory that the
caller still uses.
"""

from __future__ import annotations

from typing import Any

from .link import WorkerLink


def use_tracker_of(path: str) -> None:
    """Use the resource tracker of the process at this link, from its first use on."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    # Newer Pythons have a method that only starts it; before, it is a part of this one.
    starts_only = hasattr(tracker, "_launch")
    name = "_launch" if starts_only else "ensure_running"
    start = getattr(tracker, name)

    def start_or_ask() -> None:
        if tracker._fd is None:
            tracker._fd = _ask(path)
        if tracker._fd is None or not starts_only:
            start()

    setattr(tracker, name, start_or_ask)


def _ask(path: str) -> int | None:
    """Return a descriptor of the caller's tracker; None if the caller is gone.

    The link is one of its own: threads, and processes that a call has forked, may ask.
    """
    try:
        link = WorkerLink(path)
        try:
            return link.tracker()
        finally:
            link.close()
    except (OSError, LookupError):
        return None
