"""The local state of a job that this dispatcher runs."""

from __future__ import annotations

import asyncio
import time

from jetmap.dispatch.open_map import OpenMap

from .record import Record


class RunningJob:
    """A job that this dispatcher runs, with what only its owner knows."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.seq = 0
        self.writing: Record | None = (
            None  # The record being written: its notification may precede the reply.
        )
        self.base = 0  # Bytes of the store that it took when this run began.
        self.took_over = False
        self.is_waiting = False  # For workers that have the function.
        self.began = time.monotonic()
        self.elapsed_before = record.elapsed
        self.failed_before = 0
        self.run: OpenMap | None = None
        self.task: asyncio.Task[None] | None = None
        self.stopped = False
        self.looked_done = -1  # Outcomes when the broker's room was last checked.
        self.looked_at = 0.0
        self.lack_of_room: str | None = None
        self.over = asyncio.Event()  # Set when the last outcome is stored.

    @property
    def elapsed(self) -> float:
        """Seconds for which the job has run, on all its owners."""
        return self.elapsed_before + time.monotonic() - self.began

    def stored(self, run: OpenMap) -> int:
        """Bytes of the store that the job takes."""
        return self.base + run.stored_bytes

    def stop(self) -> None:
        """Stop running the job and write nothing more: somebody else decides on it now."""
        if not self.stopped:
            self.stopped = True
            if self.task is not None:
                self.task.cancel()


def timeout_message(record: Record) -> str:
    """Explain that a job failed because it exceeded its timeout."""
    return (
        f"the job did not end within its timeout of {record.timeout:g} s: "
        f"{record.done} of {record.total} items were done when progress was last recorded"
    )
