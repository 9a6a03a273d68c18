"""Send a job's outcomes: by page, whole while the job runs, or as events that can be resumed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from jetmap.errors import JetmapError, JobEnded, JobError
from jetmap.jobs.record import check_readable
from jetmap.settings import LimitSettings
from jetmap.wire import arrays
from jetmap.wire.messages import Format

from .admission import Reservation
from .answers import Gathered
from .asgi import Header, Send
from .heartbeats import Beat, Heartbeats
from .models import EVENT_ID
from .outcomes import Outcomes, Translated, translate
from .problems import Problem, bad_parameter, error_record, job_ended, problem_of
from .streams import STREAM_HEADERS, Lines, event, results_event

if TYPE_CHECKING:
    from jetmap.jobs.outcomes import StoredOutcomes
    from jetmap.jobs.record import Record
    from jetmap.jobs.service import Jobs

logger = logging.getLogger(__name__)


_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode
_EVENT_ID = re.compile(EVENT_ID)


# Errors of failed items that are read together.
FAILURES_AT_ONCE = 500


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
    detail = record.reason or f"{done} of {total} items have an outcome; the others get none"
    return job_ended(record.state, detail, job=record.id, done=done, total=record.total)


# Pages


@dataclass(frozen=True)
class PageBody:
    """A page as JSON. next: the item to ask for next."""

    body: bytes
    next: int | None


async def page(
    jobs: Jobs, record: Record, start: int, limit: int, wait: float, debug: bool
) -> PageBody:
    """Return the outcomes of at most ``limit`` items from ``start`` on.

    wait: seconds to wait until there are any. If an ended job lacks some, ``next`` skips them.
    """
    follower = Follower(jobs, record, wait)
    try:
        return await _page(follower, start, limit, debug)
    finally:
        follower.close()


async def _page(follower: Follower, start: int, limit: int, debug: bool) -> PageBody:
    record, reader = follower.record, follower.outcomes
    following: int | None = start
    looked = False
    while True:
        found = await reader.page(start, limit, follower.record.total)
        if found.batches or found.next is None:
            following = found.next
            break
        if follower.record.is_over:
            following = await _behind_gap(reader, start)
            if following != start or looked:
                break
            looked = True  # A replica may have less than the leader.
            continue
        try:
            await follower.more()
        except Enough:
            break
    outcomes = [_in_json(batch, record.format) for batch in found.batches]
    return _page_body(start, outcomes, following, debug, record.run)


def _page_body(
    start: int, batches: list[Outcomes], next: int | None, debug: bool, run: int
) -> PageBody:
    count = sum(batch.count for batch in batches)
    values = arrays.concatenate([batch.values for batch in batches], count, "json")
    errors = _json([error_record(e, debug) for batch in batches for e in batch.errors])
    body = b'{"start":%d,"values":%b,"errors":%b,"next":%b%b}'
    of_run = b',"run":%d' % run if run > 1 else b""
    return PageBody(body % (start, values, errors, _json(next), of_run), next)


async def _behind_gap(reader: StoredOutcomes, item: int) -> int | None:
    """Find the first item from ``item`` on that has an outcome."""
    await reader.complete()
    for start, end in reader.index.ranges():
        if end > item:
            return max(start, item)
    return None


# The whole


async def lines(
    jobs: Jobs, record: Record, start: int, wait: float, debug: bool
) -> AsyncGenerator[bytes, None]:
    """Write JSON lines in input order, and one last line.

    Outcomes are written as long as some come at least every ``wait`` seconds. The last line is
    ``{"done", "failed"}`` of the lines before it, with ``"next"``, the item to start from next, if
    the job is not over; or a problem if some outcomes never come.
    """
    style = Lines()
    follower = Follower(jobs, record, wait)
    done = failed = 0
    at = start
    try:
        async for batch in _in_order(start, follower):
            outcomes = _in_json(batch, record.format)
            records = [error_record(error, debug) for error in outcomes.errors]
            done += outcomes.count
            failed += len(records)
            at = outcomes.start + outcomes.count
            yield style.outcomes(outcomes, records)
            follower.news()
    except Enough:
        yield b'{"done":%d,"failed":%d,"next":%d}\n' % (done, failed, at)
        return
    except Exception as exc:
        yield style.problem(problem_of(exc, debug))
        return
    finally:
        follower.close()
    record = follower.record
    if done < (record.total or 0) - start:
        yield style.problem(incomplete(record, done))
    else:
        yield style.done(done, failed, 0)


async def failed_lines(
    outcomes: StoredOutcomes, start: int, debug: bool
) -> AsyncGenerator[bytes, None]:
    """Write the errors of the items that failed so far as JSON lines, and their number."""
    at: int | None = start
    failed = 0
    while at is not None:
        found, at = await outcomes.failures(at, FAILURES_AT_ONCE)
        failed += len(found)
        yield b"".join(
            b'{"index":%d,"error":%b}\n' % (error.index, _json(error_record(error, debug)))
            for error in found
        )
    yield b'{"failed":%d}\n' % failed


async def packed(
    jobs: Jobs,
    record: Record,
    start: int,
    wait: float,
    limits: LimitSettings,
    reservation: Reservation,
    debug: bool,
) -> AsyncGenerator[bytes, None]:
    """Write ``{"start", "values", "errors", "missing", "next"}`` in MessagePack.

    Outcomes are written as long as some come at least every ``wait`` seconds. values: of all items
    from ``start`` on; null if an item failed or has no outcome. missing: the ranges [a, b) of items
    without one. next: the item to start from next, null if the job is over.
    """
    total = record.total or 0
    missing: list[tuple[int, int]] = []
    errors = Gathered("msgpack", limits, reservation)
    follower = Follower(jobs, record, wait)
    at, following = start, None
    try:
        yield b"\x85" + _msgpack("start") + _msgpack(start)
        yield _msgpack("values") + arrays.header(max(0, total - start))
        try:
            async for batch in _in_order(start, follower):
                outcomes: Outcomes = batch
                if record.format != "msgpack":
                    outcomes = translate(batch, record.format, "msgpack")
                if outcomes.start > at:
                    missing.append((at, outcomes.start))
                    for block in _nulls(outcomes.start - at):
                        yield block
                at = outcomes.start + outcomes.count
                if outcomes.errors:
                    shown = [error_record(error, debug) for error in outcomes.errors]
                    encoded = Translated(outcomes.start, len(shown), _msgpack(shown), [])
                    errors.add(encoded)
                yield arrays.body(outcomes.values, "msgpack")
                follower.news()
        except Enough:
            following = at
        if at < total:
            missing.append((at, total))
            for block in _nulls(total - at):
                yield block
        yield _msgpack("errors")
        for block in errors.blocks():
            yield block
        yield _msgpack("missing") + _msgpack(missing) + _msgpack("next") + _msgpack(following)
    finally:
        follower.close()
        errors.close()


async def _in_order(start: int, follower: Follower) -> AsyncIterator[Outcomes]:
    """Read all outcomes in input order; of an ended job, also those after a gap."""
    reader = follower.outcomes
    at: int | None = start
    while at is not None:
        async for batch in reader.ordered(at, more=follower.more):
            at = batch.start + batch.count
            yield batch
        assert at is not None
        at = await _behind_gap(reader, at) if at < (follower.record.total or 0) else None


def _nulls(count: int) -> list[bytes]:
    block = 1 << 16
    return [b"\xc0" * min(block, count - at) for at in range(0, count, block)]


def _in_json(outcomes: Outcomes, source: Format) -> Outcomes:
    return outcomes if source == "json" else translate(outcomes, source, "json")


# Events


@dataclass(frozen=True)
class EventId:
    """The position of a reader of events.

    seq: the last message it read. part: if not 0, the events of that message that it read. end: it
    read the last event. run: the run that it reads; 0: the latest.
    """

    seq: int = 0
    part: int = 0
    end: bool = False
    run: int = 0

    @classmethod
    def read(cls, text: str) -> EventId:
        """Read an id from a header or a query. Raises Problem: 400."""
        if not text:
            return cls()
        found = _EVENT_ID.fullmatch(text)
        if found is None or not found[0].isascii():
            raise bad_parameter(
                "Last-Event-ID",
                f"{text!r} is not an id of a job's events: send the last one received",
            )
        run, seq, part, end = found.groups()
        return cls(int(seq), int(part or 0), end is not None, max(1, int(run or 1)))


async def events(
    jobs: Jobs, record: Record, last: EventId, debug: bool
) -> AsyncGenerator[bytes, None]:
    """Write the server-sent events after ``last``: start, results, and done or failed.

    ``failed`` ends them if the job ended without some outcomes, or is gone. On any other error,
    such as a broker that is away, they break off, so that the client comes again.
    """
    seen = last.seq if not last.part else last.seq - 1
    done = failed = 0
    begun = {"job": record.id, "total": record.total}
    prefix = b""
    if record.run > 1:
        begun["run"] = record.run
        prefix = b"%d/" % record.run
    yield event("start", _json(begun))
    follower = Follower(jobs, record)
    try:
        reader = follower.outcomes
        async for found in reader.events(seen, more=follower.more):
            left = sum(batch.count for batch in found.batches)
            for part, batch in enumerate(found.batches, 1):
                left -= batch.count
                if found.seq == last.seq and part <= last.part:
                    continue
                outcomes = _in_json(batch, record.format)
                records = [error_record(error, debug) for error in outcomes.errors]
                id = b"%d" % found.seq if not left else b"%d.%d" % (found.seq, part)
                done_so_far = found.done - left
                yield results_event(outcomes, records, done_so_far, record.total, prefix + id)
            seen = found.seq
            follower.news()
        done, failed = reader.index.done, reader.index.failed
    except JobError as exc:
        yield event("failed", problem_of(exc, debug).encode(), b"%b%d-end" % (prefix, seen))
        return
    except JetmapError as exc:
        logger.info("events of job %s break off: %s", record.id, exc)
        return
    finally:
        follower.close()
    record = follower.record
    id = b"%b%d-end" % (prefix, seen)
    if done < (record.total or 0):
        yield event("failed", incomplete(record, done).encode(), id)
    else:
        seconds = (record.finished or 0) - (record.started or record.finished or 0)
        document = {"done": done, "failed": failed, "seconds": round(seconds, 6)}
        yield event("done", _json(document), id)


# Writing


async def write(
    send: Send,
    media: bytes,
    pieces: AsyncGenerator[bytes, None],
    *,
    heartbeats: Heartbeats | None = None,
) -> None:
    """Send a stream. heartbeats: sends comments while it is silent."""
    headers: list[Header] = [(b"content-type", media), *STREAM_HEADERS]
    beat: Beat | None = None
    started = False
    try:
        async for piece in pieces:
            if not started:
                started = True
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                if heartbeats is not None:
                    beat = heartbeats.add(send)
            if piece:
                message = {"type": "http.response.body", "body": piece, "more_body": True}
                await (beat.send(message) if beat is not None else send(message))
        if beat is not None:
            await beat.close()
        await send({"type": "http.response.body", "body": b""})
    except OSError as exc:  # Servers of ASGI 2.4 raise this when the client has left.
        if not started:
            raise
        logger.debug("an answer is not read to its end: %r", exc)
    finally:
        if beat is not None:
            await beat.cancel()
        await pieces.aclose()
