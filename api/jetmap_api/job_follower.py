"""Follow a job: wait for more outcomes, and see which never come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jetmap.errors import JobEnded
from jetmap.jobs.record import check_readable
from jetmap.wire.messages import Format

from .outcomes import Outcomes, translate
from .problems import Problem, job_ended

if TYPE_CHECKING:
    from jetmap.jobs.outcomes import StoredOutcomes
    from jetmap.jobs.record import Record
    from jetmap.jobs.service import Jobs


class Enough(Exception):  # noqa: N818 - it is not a fault
    """Nothing came for as long as the client wants to wait."""


class Follower:
    """Waits for more of a job. Close it.

    patience: seconds without news before ``Enough``; None for no limit. record: the newest known.
    outcomes: reads the stored outcomes.
    """

    def __init__(self, jobs: Jobs, record: Record, patience: float | None = None) -> None:
        self._reader = jobs.reader(record)
        self.outcomes = self._reader.outcomes
        self._patience = patience
        self._until = 0.0
        self.news()

    @property
    def record(self) -> Record:
        return self._reader.record

    def news(self) -> None:
        """Begin the patience anew, because something came."""
        if self._patience is not None:
            self._until = time.monotonic() + self._patience

    async def more(self) -> int | None:
        """Wait for more; readers of outcomes call it when they have read everything.

        Returns the total once the job is over, else None. Raises JobEnded, UnknownJob, Enough.
        """
        if not self.record.is_over:
            left = None
            if self._patience is not None:
                left = self._until - time.monotonic()
                if left <= 0:
                    raise Enough
            await self._reader.changed(left)
        check_kept(self.record)
        return (self.record.total or 0) if self.record.is_over else None

    def close(self) -> None:
        """Stop reading. Closing it again is harmless."""
        self._reader.close()


def check_kept(record: Record) -> None:
    """Check that a job's outcomes are still there. Raises JobEnded, JobUnreadable."""
    check_readable(record)
    if record.state in ("expired", "deleted"):
        raise JobEnded(f"job {record.id} has {record.state}, with its results", state=record.state)


def check_shown(record: Record) -> None:
    """Check that a job's outcomes are there, and can be shown. Raises Problem: 406, as well."""
    check_kept(record)
    if record.format == "pickle" and record.values:
        raise Problem(
            406,
            "pickled-values",
            "The values are pickled",
            f"job {record.id} was submitted by a Python program that trusts its workers, and a "
            f"gateway loads no pickles: annotate what {record.function} returns, as in "
            f"def {record.function}(item) -> dict[str, int], and submit it again; or read the job "
            "in Python",
            job=record.id,
        )


def incomplete(record: Record, done: int) -> Problem:
    """Make the problem that takes the place of outcomes that never come."""
    total = record.total or 0
    state: str = record.state
    detail = record.reason
    if state == "succeeded":
        state, detail = "removed", f"only {done} of {total} outcomes are still in the store"
    detail = detail or f"{done} of {total} items have an outcome; the others get none"
    return job_ended(state, detail, job=record.id, done=done, total=record.total)


async def behind_gap(reader: StoredOutcomes, item: int) -> int | None:
    """Find the first item from ``item`` on that has an outcome."""
    await reader.complete()
    for start, end in reader.index.ranges():
        if end > item:
            return max(start, item)
    return None


def in_json(outcomes: Outcomes, source: Format) -> Outcomes:
    return outcomes if source == "json" else translate(outcomes, source, "json")
