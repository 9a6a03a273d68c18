"""Parts that many operations of the OpenAPI document share."""

from __future__ import annotations

from .samples import Schema

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
NOT_OVER = {
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

_REFUSALS = {
    404: "There is no such job.",
    406: "No answer of these media types, or the values are pickled.",
    410: "The job has expired, with its results.",
    501: "This gateway's broker has no store that lasts.",
}


def refusals(*statuses: int) -> dict[int | str, Schema]:
    """Describe the refusals of an endpoint of jobs."""
    return {status: refusal_response(_REFUSALS[status]) for status in statuses}


def refusal_response(description: str) -> Schema:
    return {"description": description, "content": PROBLEM}


NOT_CONNECTED: dict[int | str, Schema] = {
    503: {**refusal_response("The gateway is not connected."), "headers": RETRY_AFTER}
}
