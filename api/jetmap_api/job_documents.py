"""The documents and headers that describe a job."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.responses import Response

from jetmap.jobs.record import JobState
from jetmap.wire.messages import Format

from .asgi import Header, Scope, Send, respond
from .documents import NO_STORE, answer, encoded
from .media import Answer
from .models import LISTED, Job, JobLinks
from .problems import bad_parameter

if TYPE_CHECKING:
    from jetmap.jobs.record import Record

JSON = b"application/json"
# Seconds after which to look again at a running job, at most.
MOST_PATIENT = 10.0


def job_path(scope: Scope, id: str = "", rest: str = "") -> str:
    """Return the path of a job, below the point where the gateway is mounted."""
    root: str = scope.get("root_path", "")
    return f"{root.rstrip('/')}/jobs{'/' if id else ''}{id}{rest}"


def describe(scope: Scope, record: Record) -> Job:
    """Make the status document. Times are UTC (RFC 3339), rate is items a second."""
    rate, left = record.rate, record.seconds_left
    return Job(
        id=record.id,
        function=record.function,
        state=record.public_state,
        total=record.total,
        done=record.done,
        failed=record.failed,
        created=timestamp(record.created or None),
        started=timestamp(record.started),
        finished=timestamp(record.finished),
        rate=None if rate is None else round(rate, 3),
        seconds_left=None if left is None else round(left, 3),
        waiting_for=record.waiting_for,
        reason=record.reason,
        max_failed=record.max_failed,
        run=record.run,
        labels=record.labels,
        max_parallel=record.max_parallel,
        paused=record.paused,
        links=JobLinks(
            self=job_path(scope, record.id),
            results=job_path(scope, record.id, "/results"),
            events=job_path(scope, record.id, "/events"),
            cancel=job_path(scope, record.id, "/cancel"),
            retry=job_path(scope, record.id, "/retry"),
        ),
    )


def timestamp(seconds: float | None) -> str | None:
    """Format seconds since 1970 as RFC 3339."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def retry_after(record: Record) -> list[Header]:
    """Say when to look again at a job that is not over."""
    if record.is_over:
        return []
    left = record.seconds_left
    seconds = 1 if left is None else math.ceil(min(MOST_PATIENT, max(1.0, left)))
    return [(b"retry-after", b"%d" % seconds)]


async def accepted(
    send: Send, scope: Scope, record: Record, headers: Iterable[Header] = ()
) -> None:
    """Answer 202 with the job's status and place."""
    place = (b"location", job_path(scope, record.id).encode())
    body = encoded(describe(scope, record))
    await respond(send, 202, JSON, body, [NO_STORE, *retry_after(record), place, *headers])


def status_answer(scope: Scope, record: Record, status: int = 200) -> Response:
    """Make the answer that describes a job."""
    return answer(describe(scope, record), status, retry_after(record))


def states_of(text: str) -> list[JobState]:
    """Read states such as ``running,queued``. Raises Problem: 400."""
    found: list[JobState] = []
    for name in filter(None, text.split(",")):
        for state in LISTED:
            if state == name:
                found.append(state)
                break
        else:
            raise bad_parameter("state", f"state is one or more, by commas, of {', '.join(LISTED)}")
    return found


def link_to(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query, safe=',')}"


def next_link(url: str) -> Header:
    return b"link", b'<%b>; rel="next"' % url.encode("latin-1", "replace")


def as_format(answer: Answer) -> Format:
    """Return the encoding of a list of this media."""
    return "msgpack" if answer == "msgpack" else "json"
