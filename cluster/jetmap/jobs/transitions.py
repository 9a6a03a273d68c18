"""Every change of a job's record, as drawn in ``record``. No I/O, no clock."""

from __future__ import annotations

import msgspec

from .record import Record, State

# Values of ``Record.waiting_for``.
WORKERS = "workers"
ROOM = "room"

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
    state: State,
    reason: str | None,
    *,
    done: int,
    failed: int,
    stored: int,
    now: float,
) -> Record:
    """End a job, whose input is then removed. stored: bytes that it takes, with its input."""
    if record.started is not None:
        record = as_running(record, now)
    outcomes = stored - record.input_bytes
    return replace(
        record,
        state=state,
        reason=reason,
        done=done,
        failed=failed,
        stored=outcomes,
        reserved=outcomes,
        claimed=0,
        finished=now,
        updated=now,
        owner="",
        waiting_for=None,
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


def timeout_message(record: Record) -> str:
    """Explain that a job failed because it exceeded its timeout."""
    return (
        f"the job did not end within its timeout of {record.timeout:g} s: "
        f"{record.done} of {record.total} items were done when progress was last recorded"
    )
