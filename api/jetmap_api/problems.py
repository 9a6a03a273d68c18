"""Refusals as ``application/problem+json`` (RFC 9457), and the record of a failed item."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from jetmap import errors
from jetmap.wire.messages import ErrorRecord

from .asgi import Header, Send, respond

logger = logging.getLogger(__name__)

RETRY_AFTER = (b"retry-after", b"1")

# By the kind of an item's error: status, slug and title of a list's refusal.
ITEM_PROBLEMS: dict[str, tuple[int, str, str]] = {
    "raised": (500, "item-raised", "The function raised"),
    "invalid": (422, "item-invalid", "An item does not fit the function's type"),
    "timeout": (504, "item-timeout", "An item computed for longer than its timeout"),
    "lost": (500, "worker-lost", "The worker died in an item"),
    "unencodable": (500, "item-unencodable", "A value cannot be encoded"),
}

# The first that matches counts; WorkerLost and MapTimeout are also built-in errors.
_REFUSALS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (errors.MapTimeout, 504, "timeout", "The map did not end in time"),
    (errors.MapCancelled, 409, "map-cancelled", "The map was cancelled"),
    (errors.UnknownFunction, 404, "unknown-function", "No such function"),
    (errors.NoWorkers, 503, "no-workers", "No worker has this function now"),
    (errors.WorkerStartFailed, 503, "workers-failed", "The workers cannot start"),
    (errors.TooManyMaps, 429, "too-many-maps", "Too many maps are open"),
    (errors.BrokerUnreachable, 503, "no-broker", "The broker does not answer"),
    (errors.ClusterClosed, 503, "closed", "The gateway is not connected"),
    (errors.LimitExceeded, 413, "limit-exceeded", "Over a limit"),
    (errors.Malformed, 400, "malformed-body", "The body is malformed"),
    (errors.UnknownJob, 404, "unknown-job", "No such job"),
    # 501, not 503: trying again does not help as long as this gateway has no store.
    (errors.JobsUnavailable, 501, "jobs-unavailable", "Jobs need a store that lasts"),
    (errors.StoreFull, 507, "store-full", "The store of jobs is full"),
    (errors.UploadLost, 409, "upload-lost", "The upload was given up"),
    (errors.KeyBusy, 409, "key-busy", "The first request of this key is not over"),
    (errors.JobUnreadable, 409, "job-unreadable", "The job is of another version of jetmap"),
    (errors.JobNotRetryable, 409, "job-not-retryable", "The job cannot be run again"),
    (errors.JobOver, 409, "job-over", "The job is over"),
    (errors.KeyReused, 422, "key-reused", "The key was used for another job"),
)

# By the state of a job: status, slug and title of the refusal of outcomes that never come.
_ENDINGS: dict[str, tuple[int, str, str]] = {
    "failed": (500, "job-failed", "The job failed"),
    "cancelled": (409, "job-cancelled", "The job was cancelled"),
    "expired": (410, "job-expired", "The job has expired"),
    "deleted": (404, "unknown-job", "No such job"),
    "removed": (410, "outcomes-removed", "Outcomes of the job have been removed"),
}


class Problem(Exception):  # noqa: N818 - the term of RFC 9457
    """A refusal.

    slug: the end of its ``type``, ``urn:jetmap:<slug>``. members: further members of the document.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str = "",
        *,
        headers: Iterable[Header] = (),
        **members: Any,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.headers = list(headers)
        self.members = members

    def document(self) -> dict[str, Any]:
        """Return the document that RFC 9457 describes."""
        document: dict[str, Any] = {
            "type": f"urn:jetmap:{self.slug}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            document["detail"] = self.detail
        return document | self.members

    def encode(self) -> bytes:
        return msgspec.json.encode(self.document())


def malformed(detail: str, **members: Any) -> Problem:
    """Make a 400: the body does not match its media type."""
    return Problem(400, "malformed-body", "The body is malformed", detail, **members)


def bad_parameter(name: str, detail: str, **members: Any) -> Problem:
    """Make a 400 for a query parameter."""
    title = f"Bad parameter {name!r}"
    return Problem(400, "bad-parameter", title, detail, parameter=name, **members)


def over_limit(detail: str, *, setting: str, limit: int, **members: Any) -> Problem:
    """Make a 413 for what exceeds the limit of that setting."""
    return Problem(
        413, "limit-exceeded", "Over a limit", detail, setting=setting, limit=limit, **members
    )


def error_record(record: ErrorRecord, debug: bool) -> dict[str, Any]:
    """Return an item's error as callers see it, with its traceback only if ``debug``."""
    shown: dict[str, Any] = {
        "index": record.index,
        "kind": record.kind,
        "type": record.type,
        "message": record.message,
    }
    if record.detail and "tries" in record.detail:
        shown["tries"] = record.detail["tries"]
    if debug and record.traceback:
        shown["traceback"] = record.traceback
    return shown


def item_problem(record: ErrorRecord, debug: bool) -> Problem:
    """Make the answer of a map that ends with its first failing item."""
    status, slug, title = ITEM_PROBLEMS.get(record.kind, ITEM_PROBLEMS["raised"])
    detail = f"item {record.index}: {record.type}: {record.message}"
    if record.detail and record.detail.get("untyped"):  # Only a pickle could carry its value.
        status, slug, title = 406, "pickled-values", "Only a pickle could carry the value"
    return Problem(status, slug, title, detail, error=error_record(record, debug))


def _record_of(exc: errors.ItemError) -> ErrorRecord:
    return ErrorRecord(exc.index, exc.kind, exc.type, exc.message, exc.traceback, exc.detail)


def problem_of(exc: BaseException, debug: bool) -> Problem:
    """Make the refusal for an exception; an unexpected one is logged and a plain 500."""
    if isinstance(exc, Problem):
        return exc
    if isinstance(exc, errors.ItemError):
        return item_problem(_record_of(exc), debug)
    if isinstance(exc, errors.TooManyFailed):
        # As the first of them alone would be answered.
        kind = exc.errors[0].kind if exc.errors else "raised"
        status = ITEM_PROBLEMS.get(kind, ITEM_PROBLEMS["raised"])[0]
        title = "More items failed than may"
        return Problem(status, "too-many-failed", title, _text(exc, debug), **_facts(exc, debug))
    if isinstance(exc, errors.JobEnded):
        return job_ended(exc.state, str(exc))
    for cls, status, slug, title in _REFUSALS:
        if isinstance(exc, cls):
            seconds = 1.0 if status == 503 else None
            if isinstance(exc, errors.Retryable):
                seconds = exc.retry_after
            headers: list[Header] = []
            if seconds is not None:
                headers = [(b"retry-after", b"%d" % max(1, math.ceil(seconds)))]
            return Problem(
                status, slug, title, _text(exc, debug), headers=headers, **_facts(exc, debug)
            )
    if isinstance(exc, errors.JetmapError):
        logger.error("a map failed: %s", exc)
        return Problem(500, "failed", "The map failed", _text(exc, debug))
    logger.error("unexpected error in the gateway", exc_info=exc)
    detail = repr(exc) if debug else "the gateway's log has the details"
    return Problem(500, "internal", "Unexpected error in the gateway", detail)


def job_ended(state: str, detail: str, **members: Any) -> Problem:
    """Make the refusal of outcomes that never come, because the job has ended."""
    status, slug, title = _ENDINGS.get(state, _ENDINGS["failed"])
    return Problem(status, slug, title, detail, **members)


def status_problem(status: int, detail: object, headers: Iterable[Header] = ()) -> Problem:
    """Make the refusal for a plain HTTP status, such as a router's 404."""
    phrase = HTTPStatus(status).phrase
    slug = phrase.lower().replace(" ", "-")
    text = "" if detail in (None, phrase) else str(detail)
    return Problem(status, slug, phrase, text, headers=headers)


async def refuse(send: Send, problem: Problem) -> None:
    """Answer with a problem, whatever the request accepts."""
    media = b"application/problem+json"
    await respond(
        send, problem.status, media, problem.encode(), problem.headers, reason=problem.slug
    )


STOPPING = Problem(
    503, "closed", "The gateway stops", "send the request again", headers=(RETRY_AFTER,)
)


async def answer_nobody(send: Send) -> None:
    """End a request whose client has left.

    The answer is never seen, but middleware such as Starlette's takes a missing one for a fault.
    """
    try:
        await respond(send, 499, b"text/plain", b"")
    except OSError:
        pass  # Some servers raise this when the client has left.


async def end_cancelled(send: Send, *, answering: bool) -> None:
    """End a request whose task was cancelled: the server stops, and its grace is over.

    The cancellation ends here, because the server would turn it into a 500 of its own. answering:
    an answer has begun, or the client has left.
    """
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    if not answering:
        await refuse(send, STOPPING)


def _text(exc: BaseException, debug: bool) -> str:
    """Return the message; without its traceback, only the first and last line."""
    text = str(exc).strip()
    if debug or "Traceback (most recent call last)" not in text:
        return text
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[0] if not lines[0].startswith("Traceback") else ""
    return f"{head} {lines[-1].strip()}".strip()


def _facts(exc: BaseException, debug: bool) -> dict[str, Any]:
    if isinstance(exc, errors.LimitExceeded):
        facts: dict[str, Any] = {"setting": exc.setting, "limit": exc.limit, "index": exc.index}
    elif isinstance(exc, errors.Malformed):
        facts = {"line": exc.line, "position": exc.position}
    elif isinstance(exc, errors.StoreFull):
        facts = {"limit": exc.limit, "used": exc.used, "wanted": exc.wanted}
    elif isinstance(exc, errors.TooManyFailed):
        first = [error_record(_record_of(error), debug) for error in exc.errors]
        facts = {"failed": exc.failed, "done": exc.done, "total": exc.total, "errors": first}
    else:
        return {}
    return {name: fact for name, fact in facts.items() if fact is not None}
