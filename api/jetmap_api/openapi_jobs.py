"""OpenAPI of ``/jobs``."""

from __future__ import annotations

from typing import Any

from jetmap import bounds

from .jobdocuments import LISTED, STATES
from .jobstreams import EVENT_ID
from .samples import Schema

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_NOT_OVER = {
    "Retry-After": {
        "description": "Seconds after which to look again, while the job is not over.",
        "schema": {"type": "integer"},
    }
}
RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer"},
    }
}
CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string", "examples": ["Bearer"]}}}
_JOB_REFERENCE = {"schema": {"$ref": "#/components/schemas/Job"}}

ACCEPTED: Schema = {
    "description": "The input is durable, and the job will run whatever dies.",
    "headers": {
        "Location": {"description": "The job.", "schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"type": "string"}},
        **_NOT_OVER,
    },
    "content": {"application/json": _JOB_REFERENCE},
}

PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    # No examples: tools that try the API out send them with the first click.
    "description": "`respond-async`: run it as a job, and answer 202 at once. `wait=N`: answer "
    f"202 if the job is not over within N seconds, {bounds.POLL.most} at most. Ignored where there "
    "is no store of jobs.",
    "schema": {"type": "string"},
}

KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Of the caller's choice: a request that comes again under the same key gets "
    "the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}

SUBMIT_PARAMETERS: list[Schema] = [
    {
        "name": "timeout",
        "in": "query",
        "description": "Seconds for the whole job, from its start.",
        "schema": bounds.TIMEOUT.schema(),
    },
    {
        "name": "ttl",
        "in": "query",
        "description": "Seconds that the job and its results are kept after its end.",
        "schema": bounds.TTL.schema(),
    },
    {
        "name": "reserve",
        "in": "query",
        "description": "Bytes of the store that its input and results may take.",
        "schema": bounds.SIZE.schema(),
    },
    KEY,
]

SUBMIT_STATUSES = {
    "400": "The body is malformed (with the position), or a parameter is; nothing is stored.",
    "404": "No worker ever announced a function of this name.",
    "408": "Nothing of the body came for `job_upload_idle` seconds; nothing is stored.",
    "409": "The first request of this Idempotency-Key is still uploading; see `Retry-After`.",
    "413": "An item is over its limit.",
    "415": "The body is no JSON array, JSON lines or MessagePack array.",
    "422": "The Idempotency-Key was used for another body, function or parameters.",
    "501": "This gateway's broker has no store that lasts.",
    "503": "The broker does not answer, or the gateway's memory is taken; see `Retry-After`.",
    "507": "The store is full; the problem has `limit`, `used` and `wanted`, in bytes.",
}

_INSTANT: Schema = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
_NUMBER: Schema = {"anyOf": [{"type": "number"}, {"type": "null"}]}
_COUNT: Schema = {"type": "integer", "minimum": 0}

JOB: Schema = {
    "type": "object",
    "title": "Job",
    "required": ["id", "function", "state", "total", "done", "failed", "links"],
    "properties": {
        "id": {"type": "string"},
        "function": {"type": "string"},
        "state": {
            "enum": list(STATES),
            "description": "`waiting`: it cannot go on until it has what `waiting_for` names. "
            "`succeeded`: no item failed. `failed`: some did, or, if there is a `reason`, the "
            "job did.",
        },
        "total": {"anyOf": [_COUNT, {"type": "null"}]},
        "done": {**_COUNT, "description": "items that have an outcome"},
        "failed": {**_COUNT, "description": "those of them that failed"},
        "created": _INSTANT,
        "started": _INSTANT,
        "finished": _INSTANT,
        "rate": {**_NUMBER, "description": "items a second, not counting the time it waited"},
        "seconds_left": {
            **_NUMBER,
            "description": "an estimate; null while unknown or waiting, 0 when it is over",
        },
        "waiting_for": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "the kind of thing that a waiting job lacks, such as `workers`",
        },
        "reason": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "why it waits, or failed as a whole",
        },
        "links": {
            "type": "object",
            "properties": {
                name: {"type": "string"} for name in ("self", "results", "events", "cancel")
            },
        },
    },
}

_STATES = f"^({'|'.join(LISTED)})(,({'|'.join(LISTED)}))*$"
_EVENT_ID: Schema = {"type": "string", "pattern": EVENT_ID}

_ADDRESS: Schema = {
    "type": "object",
    "title": "EventsAddress",
    "required": ["url", "expires"],
    "properties": {
        "url": {"type": "string", "description": "a path of this host"},
        "expires": {**_INSTANT, "description": "null where the gateway asks for no token"},
    },
}

_ID: Schema = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


def paths() -> dict[str, Any]:
    """All but the functions' own."""
    return {
        "/jobs": {
            "get": _operation(
                "list_jobs",
                "The jobs, newest first",
                [
                    _query(
                        "state",
                        f"One or more of {', '.join(LISTED)}, by commas.",
                        {"type": "string", "pattern": _STATES},
                    ),
                    _query("function", "Only of this function."),
                    _query("limit", "Jobs of a page.", bounds.PAGE_JOBS.schema(default=100)),
                    _query("after", "Where the page before ended; `next` has it."),
                ],
                _ok(
                    {
                        "type": "object",
                        "required": ["jobs", "next"],
                        "properties": {
                            "jobs": {"type": "array", "items": _JOB_REFERENCE["schema"]},
                            "next": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                        },
                    }
                ),
            )
        },
        "/jobs/{id}": {
            "get": _operation(
                "get_job",
                "State and progress",
                [_ID],
                {"200": {"description": "The job.", "headers": _NOT_OVER} | _content(JOB_CONTENT)},
                "404",
            ),
            "delete": _operation(
                "delete_job",
                "Cancels and removes a job",
                [_ID],
                {"204": {"description": "Nothing of it stays."}},
                "404",
            ),
        },
        "/jobs/{id}/cancel": {
            "post": _operation(
                "cancel_job",
                "Cancels a job; one that is over stays as it is",
                [_ID],
                {"202": {"description": "The job."} | _content(JOB_CONTENT)},
                "404",
            )
        },
        "/jobs/{id}/results": {
            "get": _operation(
                "job_results",
                "Values and errors in input order, by page or all, also while the job runs",
                [
                    _ID,
                    _query("start", "The first item.", bounds.START.schema(default=0)),
                    _query("limit", "Items of a page.", bounds.PAGE_ITEMS.schema(default=1000)),
                    _query(
                        "wait",
                        "Seconds to wait for more where there is nothing yet.",
                        bounds.POLL.schema(default=0),
                    ),
                ],
                {"200": _results()},
                "404",
                "410",
            )
        },
        "/jobs/{id}/events/address": {
            "post": _operation(
                "sign_job_events",
                "A short-lived address of the job's events, which needs no token",
                [
                    _ID,
                    _query(
                        "ttl",
                        "Seconds in which it may be opened.",
                        bounds.SIGNED.schema(default=600),
                    ),
                ],
                {
                    "200": {"description": "The address."}
                    | _content({"application/json": {"schema": _ADDRESS}})
                },
                "404",
                "410",
            )
        },
        "/jobs/{id}/events": {
            "get": _operation(
                "job_events",
                "Results as they come, as server-sent events that go on behind `Last-Event-ID`",
                [
                    _ID,
                    _query("last_event_id", "For those who cannot send the header.", _EVENT_ID),
                    {"name": "Last-Event-ID", "in": "header", "schema": _EVENT_ID},
                ],
                {
                    "200": {"description": "`start`, `results`, and `done` or `failed`."}
                    | _content({"text/event-stream": {"schema": {"type": "string"}}}),
                    "204": {"description": "All was read: do not come again."},
                },
                "404",
                "410",
            )
        },
    }


JOB_CONTENT: Schema = {"application/json": _JOB_REFERENCE}


def _results() -> Schema:
    error = {"$ref": "#/components/schemas/ItemError"}
    page: Schema = {
        "type": "object",
        "required": ["start", "values", "errors", "next"],
        "properties": {
            "start": _COUNT,
            "values": {"type": "array", "items": {}, "description": "null where an item failed"},
            "errors": {"type": "array", "items": error},
            "next": {"anyOf": [_COUNT, {"type": "null"}], "description": "the next page's start"},
        },
    }
    content = {
        "application/json": {"schema": page},
        "application/jsonl": {"schema": {"type": "object"}},
        "application/msgpack": {"schema": {"type": "object"}},
    }
    return {
        "description": "A page; or, as JSON lines or MessagePack, all that is there, with `next` "
        "if there will be more.",
        "content": content,
    }


def _operation(
    id: str, summary: str, parameters: list[Schema], responses: Schema, *refusals: str
) -> Schema:
    known = {"404": "There is no such job.", "410": "The job has expired, with its results."}
    statuses = {status: known[status] for status in refusals}
    statuses["501"] = SUBMIT_STATUSES["501"]
    return {
        "tags": ["jobs"],
        "operationId": id,
        "summary": summary,
        "parameters": parameters,
        "responses": responses
        | {status: {"description": text, "content": PROBLEM} for status, text in statuses.items()},
    }


def _query(name: str, description: str, schema: Schema | None = None) -> Schema:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": schema or {"type": "string"},
    }


def _ok(schema: Schema) -> Schema:
    return {"200": {"description": "A page."} | _content({"application/json": {"schema": schema}})}


def _content(content: Schema) -> Schema:
    return {"content": content}
