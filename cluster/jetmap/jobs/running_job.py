"""A job as the dispatcher that carries it sees it."""

from __future__ import annotations

import asyncio
import time

from jetmap.dispatch.open_map import OpenMap

from .record import Record


class Carried:
    """A job that this dispatcher runs."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.seq = 0
        self.writing: Record | None = None  # What the stream may tell us before its answer.
        self.base = 0  # Bytes of the store that it took when we took it.
        self.took_over = False
        self.is_waiting = False  # For workers that have the function.
        self.began = time.monotonic()
        self.elapsed_before = record.elapsed
        self.failed_before = 0
        self.run: OpenMap | None = None
        self.task: asyncio.Task[None] | None = None
        self.stopped = False
        self.looked_done = -1  # Outcomes at the last look whether the broker has room.
        self.looked_at = 0.0
        self.lack_of_room: str | None = None
        self.over = asyncio.Event()  # Set when the last outcome is there.

    @property
    def elapsed(self) -> float:
        """Seconds that somebody has carried it."""
        return self.elapsed_before + time.monotonic() - self.began

    def stored(self, run: OpenMap) -> int:
        """Bytes that it takes of the store."""
        return self.base + run.stored_bytes

    def stop(self) -> None:
        """Somebody else decides on the job now: withdraws what runs of it, and writes nothing."""
        if not self.stopped:
            self.stopped = True
            if self.task is not None:
                self.task.cancel()


def late(record: Record) -> str:
    """Why a job failed whose timeout is over."""
    return (
        f"the job did not end within its timeout of {record.timeout:g} s: "
        f"{record.done} of {record.total} items were done when that was last written down"
    )
