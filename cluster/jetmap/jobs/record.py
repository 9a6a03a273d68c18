"""The stored record of a job, and its states.

All times are seconds since 1970, by the clock of the process that wrote them.

::

    begin               commit            an owner writes a new epoch
      |                    |                    |
      v                    v                    v           no workers, no room
    uploading ---------> queued -----------> running <------------------------> waiting
      |                    |                    |        workers or room again     |
      | abort, or          |                    |                                  |
      | uploader gone      | cancel             | all items done, timeout, cancel  | as running
      v                    v                    v                                  v
    deleted <-- delete -- succeeded, failed (an item failed, timeout, store full), cancelled
                                               |
                                               | ttl seconds after the end
                                               v
                                            expired (reported for an hour, then unknown)

A retry of a failed or succeeded job with failed items, or without the outcomes of some, makes it
"queued" again, as its next run.

"waiting" is how callers see a "running" record with ``waiting_for`` set. A running job whose owner
releases it or loses its lease stays "running", and another dispatcher takes it over under the next
epoch. A job in any state can be deleted. "unreadable" is a record that this version of jetmap
cannot read; it can only be deleted. "expired" and "unreadable" are never written.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from jetmap import bounds
from jetmap.errors import JobUnreadable, UnknownJob
from jetmap.wire.messages import CONSTANTS_MARK, Format

JobState = Literal[
    "uploading",
    "queued",
    "running",
    "waiting",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
    "deleted",
    "unreadable",
]
OVER: frozenset[JobState] = frozenset(
    ("succeeded", "failed", "cancelled", "expired", "deleted", "unreadable")
)


# Version of records that have runs before the present one.
RUNS_VERSION = 2
# Newest version of records; a later one may contain what this version of jetmap does not know.
VERSION = 2

Natural = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]  # Until the year 9999.


class PastRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of a job before the present one, as it ended.

    last: the sequence number of its last stored outcome; later ones of this run do not carry over
    to the next run.
    """

    state: JobState
    last: Natural
    done: Natural
    failed: Natural
    reason: str | None = None
    started: Moment | None = None
    finished: Moment | None = None
    waited: float = 0.0
    carried: Natural = 0


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job's state, one message in the state stream.

    owner: the dispatcher that runs it; empty: none. epoch: grows with each owner; it is part
    of the work subjects. caller: the submitter. key: its idempotency key's hash. digest: hash of
    its function, parameters and items. total: number of items, once all are stored. parts,
    input_bytes: messages and bytes of its input. reserved: bytes of the store reserved for its
    input and outcomes. stored: bytes that these take. ttl: seconds that it is kept after its end.
    timeout: seconds for the whole job, while it has an owner. elapsed: seconds of these that have
    passed, each owner's by its own clock. reason: why it failed, or why it waits. is_fixed:
    whether its submitter has fixed the reservation. claimed: bytes of ``reserved`` that this
    record adds, not granted before it. waiting_for: what a job with an owner cannot continue
    without ("workers" or "room"), since ``waiting_since``; ``state`` stays "running", so that
    every version of jetmap can take the job over. waited: seconds spent waiting since ``started``.
    causes: whether its submitter unpickles exceptions. max_failed: items that may fail, or their
    share, as ``Tolerance`` reads it; None: any number, but one makes it a failed job. values:
    whether the function's values are stored; else null is. run: number of the present run, from
    1. past: the runs before it. carried: items whose outcome it has from them. keeps_input: whether
    the input of a job that is over is still stored, for its next run. submitted: the span in which
    it was submitted, as ``traceparent`` names it. labels: names and values by which people find
    it. max_parallel: cores that it may use at most. paused: whether nothing more of it is sent
    until it is resumed.
    """

    id: str
    function: str
    format: Format
    state: JobState = "uploading"
    kwargs: bytes = b""
    caller: str = ""
    key: str = ""
    owner: str = ""
    epoch: int = 0
    digest: str = ""
    total: Natural | None = None
    parts: Natural = 0
    input_bytes: Natural = 0
    done: Natural = 0
    failed: Natural = 0
    reserved: Natural = 0
    stored: Natural = 0
    created: Moment = 0.0
    started: Moment | None = None
    finished: Moment | None = None
    updated: Moment = 0.0
    ttl: float = 0.0
    timeout: float | None = None
    elapsed: float = 0.0
    reason: str | None = None
    is_fixed: bool = False
    claimed: int = 0
    waiting_for: str | None = None
    waiting_since: float = 0.0
    waited: float = 0.0
    causes: bool = False
    max_failed: str | None = None
    values: bool = True
    version: int = 1
    run: Annotated[int, msgspec.Meta(ge=1)] = 1
    past: list[PastRun] = []
    carried: Natural = 0
    keeps_input: bool = False
    submitted: str = ""
    labels: dict[str, str] = {}
    max_parallel: Annotated[int, msgspec.Meta(ge=1)] | None = None
    paused: bool = False

    @property
    def public_state(self) -> JobState:
        """The state that callers see: "waiting" instead of "running" while it cannot continue."""
        return "waiting" if self.waiting_for and self.state == "running" else self.state

    @property
    def is_over(self) -> bool:
        """Return whether the job has ended."""
        return self.state in OVER

    @property
    def has_constants(self) -> bool:
        """Return whether values that were put are among its keyword parameters."""
        return self.kwargs[:1] == CONSTANTS_MARK

    @property
    def rate(self) -> float | None:
        """Items per second, without the time spent waiting; None before the first item."""
        if self.started is None or self.done <= self.carried:
            return None
        until = self.finished if self.finished is not None else self.updated
        if self.public_state == "waiting":
            until = self.waiting_since
        return (self.done - self.carried) / max(1e-3, until - self.started - self.waited)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end, by the rate; None while unknown or waiting, 0 after the end."""
        if self.is_over:
            return 0.0
        rate = self.rate
        if rate is None or self.total is None or self.state != "running" or self.waiting_for:
            return None
        return (self.total - self.done) / rate

    @property
    def ends(self) -> list[int]:
        """The last outcome of each earlier run."""
        return [past.last for past in self.past]

    def as_of(self, run: int) -> Record:
        """Return the record as it was at the end of an earlier run; of the present run, as it is.

        A job that has expired or was deleted has no runs.
        """
        if run >= self.run or self.state in ("expired", "deleted", "unreadable"):
            return self
        past = self.past[run - 1]
        return msgspec.structs.replace(
            self,
            run=run,
            past=self.past[: run - 1],
            state=past.state,
            reason=past.reason,
            done=past.done,
            failed=past.failed,
            started=past.started,
            finished=past.finished,
            waited=past.waited,
            carried=past.carried,
            waiting_for=None,
            keeps_input=False,
        )


def read_record(data: bytes, id: str) -> Record:
    """Decode the record of job ``id``; an invalid one becomes "unreadable", with a reason.

    Values that earlier versions accepted are brought within bounds, so that the job can end.
    """
    try:
        record = _decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        return _unreadable(data, id, f"its record is damaged, or of another version: {error}")
    if record.id != id:
        return _unreadable(data, id, f"its record names another job, {record.id!r}")
    if record.version > VERSION:
        reason = f"its record has version {record.version}; this jetmap reads up to {VERSION}"
        return _unreadable(data, id, reason)
    ttl = bounds.finite(record.ttl, bounds.TTL) if record.ttl else record.ttl
    return record if ttl == record.ttl else msgspec.structs.replace(record, ttl=ttl)


def find_run(record: Record, run: int | None) -> Record:
    """Return the record of one run; None: the latest. Raises UnknownJob."""
    if run is None:
        return record
    if not 1 <= run <= record.run:
        runs = "1 run" if record.run == 1 else f"{record.run} runs"
        raise UnknownJob(f"job {record.id!r} has no run {run}: it has had {runs}")
    return record.as_of(run)


def check_readable(record: Record) -> None:
    """Raise JobUnreadable for a job that can only be deleted."""
    if record.state == "unreadable":
        raise JobUnreadable(
            f"job {record.id}: {record.reason}; use the version of jetmap that wrote it, or "
            "delete the job"
        )


def _unreadable(data: bytes, id: str, reason: str) -> Record:
    """Keep what listing the job, accounting for its room and removing it need."""
    try:
        found: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        found = {}
    known: dict[str, Any] = found if isinstance(found, dict) else {}
    kept: dict[str, Any] = {}
    for name, type in (("function", str), ("key", str), ("reserved", Natural), ("created", Moment)):
        try:
            kept[name] = msgspec.convert(known[name], type)
        except (KeyError, msgspec.ValidationError):
            continue
    function = kept.pop("function", "")
    return Record(
        id=id, function=function, format="json", state="unreadable", reason=reason, **kept
    )


_decode = msgspec.json.Decoder(Record).decode


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of an idempotency key. owner: the dispatcher that stores the input."""

    job: str
    owner: str


class InputPart(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Consecutive items of a job's input: one message of the input stream.

    items: one encoded array of ``count`` items.
    """

    start: int
    count: int
    items: bytes


class InputFragment(InputPart, frozen=True):
    """A part of one item that is too large for a message, or (without a size) an `InputPart`.

    items: ``size`` bytes in all the parts that begin at this item; those here are from ``offset``
    on.
    """

    offset: int = 0
    size: int = 0
