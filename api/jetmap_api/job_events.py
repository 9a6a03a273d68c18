"""Write a job's server-sent events, from wherever the reader left off."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from jetmap.errors import JetmapError, JobError

from .job_follower import Follower, in_json, incomplete
from .models import EVENT_ID
from .problems import Problem, bad_parameter, error_record, problem_of
from .streams import event, results_event

if TYPE_CHECKING:
    from jetmap.jobs.record import Record
    from jetmap.jobs.service import Jobs

logger = logging.getLogger(__name__)

_json = msgspec.json.Encoder().encode
_EVENT_ID = re.compile(EVENT_ID)


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
            raise unknown_event(text)
        run, seq, part, end = found.groups()
        return cls(int(seq), int(part or 0), end is not None, max(1, int(run or 1)))


def unknown_event(text: str) -> Problem:
    """Make the refusal of an id that this job has not given to an event."""
    detail = f"{text!r} is not the id of an event of this job: send the last one received, or none"
    return bad_parameter("Last-Event-ID", detail)


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
                outcomes = in_json(batch, record.format)
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
