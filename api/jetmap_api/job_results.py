"""Write a job's results in input order: by page, or whole while the job runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire import arrays

from .admission import Reservation
from .answers import Gathered, in_blocks
from .job_follower import Enough, Follower, behind_gap, in_json, incomplete
from .outcomes import Outcomes, Translated, translate
from .problems import error_record, problem_of
from .streams import Lines

if TYPE_CHECKING:
    from jetmap.jobs.outcomes import StoredOutcomes
    from jetmap.jobs.record import Record
    from jetmap.jobs.service import Jobs

# Errors of failed items that are read together.
FAILURES_AT_ONCE = 500

_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


# Pages


@dataclass(frozen=True)
class PageBody:
    """A page as JSON. next: the item to ask for next."""

    body: bytes
    next: int | None


async def outcomes_page(
    jobs: Jobs, record: Record, start: int, limit: int, wait: float, debug: bool
) -> PageBody:
    """Return the outcomes of at most ``limit`` items from ``start`` on.

    wait: seconds to wait until there are any. If a job that failed or was cancelled lacks some,
    ``next`` skips them. Raises Problem if one that succeeded does: 410.
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
            following = await behind_gap(reader, start)
            if following != start and follower.record.state == "succeeded":
                raise incomplete(follower.record, reader.index.done)
            if following != start or looked:
                break
            looked = True  # A replica may have less than the leader.
            continue
        try:
            await follower.more()
        except Enough:
            break
    outcomes = [in_json(batch, record.format) for batch in found.batches]
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
            outcomes = in_json(batch, record.format)
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
        yield _msgpack("values") + arrays.array_header(max(0, total - start))
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
        for block in in_blocks(errors.pieces()):
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
        at = await behind_gap(reader, at) if at < (follower.record.total or 0) else None


def _nulls(count: int) -> list[bytes]:
    block = 1 << 16
    return [b"\xc0" * min(block, count - at) for at in range(0, count, block)]
