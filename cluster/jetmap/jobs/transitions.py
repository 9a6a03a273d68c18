"""Every change of a job's record, as drawn in ``record``. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jetmap.wire import subjects

from .record import RUNS_VERSION, JobState, PastRun, Record

# Values of ``Record.waiting_for``.
WORKERS = "workers"
ROOM = "room"
PAUSE = "a pause"
PAUSED = "the job is paused; it goes on when it is resumed"
# Most runs of one job: each adds to the record.
MOST_RUNS = 100

# What people may change of a job that is not over.
WISHES = ("paused", "max_parallel", "max_failed", "labels")

replace = msgspec.structs.replace


def queued(record: Record, *, total: int, parts: int, size: int, digest: str, now: float) -> Record:
    """Queue a job whose input of ``size`` bytes is stored."""
    return replace(
        record,
        state="queued",
        total=total,
        parts=parts,
        input_bytes=size,
        stored=size,
        digest=digest,
        updated=now,
    )


def may_run(record: Record, known: Record, me: str) -> bool:
    """Return whether a dispatcher may take a job that it knew as ``known``: nobody was faster."""
    if record.state not in ("queued", "running"):
        return False
    return record.owner in (me, "", known.owner) and record.epoch == known.epoch


def owned(record: Record, owner: str) -> Record:
    """Give a job a new owner, under the next epoch.

    Its last owner no longer uses what it claimed.
    """
    return replace(
        record,
        owner=owner,
        epoch=record.epoch + 1,
        state="running",
        reserved=record.reserved - record.claimed,
        claimed=0,
    )


def released(record: Record) -> Record:
    """Let another process own the job at once."""
    return replace(record, owner="")


def as_waiting(record: Record, what: str, reason: str, now: float) -> Record:
    """Mark a job that lacks ``what`` as waiting, which stops the clock of its rate."""
    since = record.waiting_since if record.waiting_for else now
    return replace(record, waiting_for=what, waiting_since=since, reason=reason, updated=now)


def as_running(record: Record, now: float) -> Record:
    """Mark a job as running, for the first time or again."""
    waited = record.waited
    if record.waiting_for and record.started is not None:
        waited += max(0.0, now - record.waiting_since)
    return replace(
        record,
        waiting_for=None,
        waiting_since=0.0,
        waited=waited,
        reason=None,
        started=record.started or now,
        updated=now,
    )


def shown_waiting(record: Record, what: str, lack: str | None, now: float) -> Record | None:
    """Return the record that says whether a job waits; None if it says so already.

    lack: why it cannot continue; None: it runs.
    """
    if lack is None:
        is_shown = not record.waiting_for and record.started is not None
        return None if is_shown else as_running(record, now)
    is_shown = (record.waiting_for, record.reason) == (what, lack)
    return None if is_shown else as_waiting(record, what, lack, now)


def progressed(
    record: Record,
    *,
    done: int,
    failed: int,
    stored: int,
    reserved: int,
    elapsed: float,
    now: float,
) -> Record:
    """Record how far a running job is."""
    return replace(
        record,
        done=done,
        failed=failed,
        stored=stored,
        reserved=reserved,
        elapsed=elapsed,
        updated=now,
    )


def ended(
    record: Record,
    state: JobState,
    reason: str | None,
    *,
    done: int,
    failed: int,
    stored: int,
    now: float,
    keeps_input: bool = False,
) -> Record:
    """End a job. stored: bytes that it takes, with its input.

    keeps_input: whether its input stays, for items that failed; else it is then removed.
    """
    if record.started is not None:
        record = as_running(record, now)
    left = stored if keeps_input else stored - record.input_bytes
    return replace(
        record,
        state=state,
        reason=reason,
        done=done,
        failed=failed,
        stored=left,
        reserved=left,
        claimed=0,
        finished=now,
        updated=now,
        owner="",
        waiting_for=None,
        keeps_input=keeps_input,
    )


def steered(record: Record, wishes: Mapping[str, object]) -> Record:
    """Change what people may change of a job: new values, by the names in ``WISHES``."""
    if all(getattr(record, name) == value for name, value in wishes.items()):
        return record
    return replace(record, **wishes)


def as_steered(record: Record, newest: Record) -> Record:
    """Return what an owner writes over a record that people have changed meanwhile."""
    return steered(record, {name: getattr(newest, name) for name in WISHES})


def retry_refusal(record: Record) -> str | None:
    """Return why the failed items of a job cannot be run again; None if they can."""
    if not record.is_over:
        return f"job {record.id} is {record.public_state}: wait until it is over, or cancel it"
    if record.state == "cancelled":
        return f"job {record.id} was cancelled, and its input removed: submit its items again"
    if not record.failed and record.done == record.total:
        return f"job {record.id} has no failed items"
    if not record.keeps_input:
        return f"the input of job {record.id} is no longer stored: submit its items again"
    if record.run >= MOST_RUNS:
        return f"job {record.id} has had {MOST_RUNS} runs, the most of one job"
    return None


def retried(record: Record, owner: str, *, last: int, done: int, failed: int, now: float) -> Record:
    """Queue the next run of a job: of its items that failed, or that have no outcome.

    last: the sequence number of its last outcome. done, failed: its items, up to that one.
    """
    past = PastRun(
        state=record.state,
        last=last,
        done=done,
        failed=failed,
        reason=record.reason,
        started=record.started,
        finished=record.finished,
        waited=record.waited,
        carried=record.carried,
    )
    return replace(
        record,
        owner=owner,
        state="queued",
        run=record.run + 1,
        past=[*record.past, past],
        carried=done - failed,
        done=done - failed,
        failed=0,
        started=None,
        finished=None,
        elapsed=0.0,
        waited=0.0,
        reason=None,
        is_fixed=False,
        keeps_input=False,
        updated=now,
        version=RUNS_VERSION,
    )


def cancelled(record: Record, now: float) -> Record:
    """End a job at its caller's request; its owner's last counts may be a second old."""
    outcomes = record.stored - record.input_bytes
    return replace(
        record,
        state="cancelled",
        owner="",
        finished=now,
        updated=now,
        stored=outcomes,
        reserved=outcomes,
        claimed=0,
        waiting_for=None,
        reason=None,
    )


def counted(record: Record, *, done: int, failed: int, stored: int) -> Record:
    """Correct the counts of a job that is over. stored: bytes of its outcomes."""
    return replace(record, done=done, failed=failed, stored=stored, reserved=stored)


def deleted(record: Record, *, ttl: float, now: float) -> Record:
    """Make a tombstone, which stays for ``ttl`` seconds."""
    return replace(
        record, state="deleted", owner="", reserved=0, claimed=0, kwargs=b"", updated=now, ttl=ttl
    )


def last_map(record: Record) -> str:
    """Return the id of the map that the job's last owner ran, which may be of the run before."""
    run = record.run - (record.state == "queued" and record.run > 1)
    return subjects.job_map(record.id, record.epoch, run)


def timeout_message(record: Record) -> str:
    """Explain that a job failed because it exceeded its timeout."""
    why = f"; {record.reason}" if record.waiting_for and record.reason else ""
    return (
        f"the job did not end within its timeout of {record.timeout:g} s: "
        f"{record.done} of {record.total} items were done when progress was last recorded{why}"
    )
