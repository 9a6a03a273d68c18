"""The state of a job at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from jetmap.jobs.record import OVER, JobState, Record


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment.

    Attributes:
        id: The job's id.
        function: Name of the function that it runs.
        state: "uploading", "queued", "running", "waiting", "succeeded", "failed", "cancelled",
            "expired", "deleted" or "unreadable".
        total: Number of items; None while they are uploaded.
        done: Number of items that have an outcome.
        failed: Number of items whose outcome is an error.
        created: Time of submission (UTC).
        started: Time of the start (UTC); None before.
        finished: Time of the end (UTC); None before.
        rate: Items per second, without the time that the job waited; None while unknown.
        seconds_left: Estimate from ``rate``; None while unknown or waiting, 0 after the end.
        waiting_for: What a job in the state "waiting" lacks, such as "workers"; else None.
        reason: Why the job failed as a whole, or why it waits; else None.
        max_failed: Items that may fail, or their share; None if none was given.
        run: Number of its latest run, from 1; ``Job.retry`` starts the next.
        labels: Names and values by which people find it.
        max_parallel: Cores that it may use at most; None: no limit of its own.
        paused: Whether the job is paused.
    """

    id: str
    function: str
    state: JobState
    total: int | None
    done: int
    failed: int
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    rate: float | None
    seconds_left: float | None
    waiting_for: str | None
    reason: str | None
    max_failed: str | None = None
    run: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    max_parallel: int | None = None
    paused: bool = False

    @classmethod
    def of(cls, record: Record) -> JobStatus:
        """Make the status that a stored record describes."""
        return cls(
            id=record.id,
            function=record.function,
            state=record.public_state,
            total=record.total,
            done=record.done,
            failed=record.failed,
            created=_utc(record.created),
            started=_utc(record.started),
            finished=_utc(record.finished),
            rate=record.rate,
            seconds_left=record.seconds_left,
            waiting_for=record.waiting_for,
            reason=record.reason,
            max_failed=record.max_failed,
            run=record.run,
            labels=record.labels,
            max_parallel=record.max_parallel,
            paused=record.paused,
        )

    @property
    def is_over(self) -> bool:
        """True once the job has ended, in whatever way."""
        return self.state in OVER


def _utc(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
