"""The body of ``PATCH /jobs/{id}``: a JSON Merge Patch (RFC 7396) of limits and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import Request
from msgspec import UNSET, UnsetType

from jetmap import bounds
from jetmap.dispatch.tolerance import PATTERN
from jetmap.errors import Malformed
from jetmap.wire.check import not_utf8, syntax, utf8_error
from jetmap.wire.split.splitter import BOM
from jetmap.wire.split.whole_json import SPACE

from .asgi import header
from .openapi_parts import refusal_response
from .problems import Problem, malformed
from .request import check_encoding
from .samples import Schema
from .small_bodies import MOST_SMALL

if TYPE_CHECKING:
    from jetmap.jobs.changes import JobChanges

MEDIA = ("application/merge-patch+json", "application/json")
ACCEPT_PATCH = (b"accept-patch", ", ".join(MEDIA).encode())


class _Changes(msgspec.Struct, forbid_unknown_fields=True):
    max_parallel: int | UnsetType | None = UNSET
    max_failed: int | str | UnsetType | None = UNSET
    labels: dict[str, str | None] | UnsetType | None = UNSET


_decode = msgspec.json.Decoder(_Changes).decode

_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max_parallel": {
            "type": ["integer", "null"],
            "minimum": 0,
            "maximum": int(bounds.PARALLEL.most),
            "description": "Cores that it may use at most; 0 or null: no limit of its own.",
        },
        "max_failed": {
            "type": ["integer", "string", "null"],
            "minimum": 0,
            "maximum": bounds.START.most,
            "pattern": PATTERN,
            "description": "Items that may fail, a number or a share such as `5%`; null: any "
            "number, but one makes it a failed job.",
        },
        "labels": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": bounds.LABEL_NAME_PATTERN},
            "additionalProperties": {
                "type": ["string", "null"],
                "pattern": bounds.LABEL_VALUE_PATTERN,
            },
            "maxProperties": 2 * bounds.MOST_LABELS,  # As many may go as come.
            "description": "Values of labels, by name; null as a value removes that label, null "
            f"in the place of them all removes all. The job then has {bounds.LABELS}.",
        },
    },
    "examples": [{"max_parallel": 4, "labels": {"team": "a"}}],
}
# What OpenAPI says of it.
REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {name: {"schema": _SCHEMA} for name in MEDIA}}
}
REFUSALS: dict[int | str, Schema] = {
    400: refusal_response("The body is malformed, or a value is out of bounds."),
    408: refusal_response("Nothing of the body came for `body_idle_timeout` seconds."),
    409: refusal_response("The job is over."),
    413: refusal_response(f"The body is larger than {MOST_SMALL:,} bytes."),
    415: refusal_response("The body is not JSON."),
}


async def read_changes(request: Request) -> JobChanges:
    """Read the changes. Raises Problem: 415, or 400 for any other body."""
    media = (header(request.scope, b"content-type") or b"").decode("latin-1")
    if media.partition(";")[0].strip().lower() not in MEDIA:
        raise Problem(
            415,
            "unsupported-media-type",
            "Send JSON",
            f"the body's type is {media or 'not given'}: send an object as {MEDIA[1]} "
            """(curl -X PATCH --json '{"max_parallel": 4}' does, plain -d does not)""",
            headers=[ACCEPT_PATCH],
        )
    check_encoding(header(request.scope, b"content-encoding") or b"identity")
    try:
        found = _read(await request.body())
    except (msgspec.ValidationError, Malformed, RecursionError) as exc:
        raise wrong_changes(str(exc)) from None
    changes: JobChanges = {}
    if not isinstance(found.max_parallel, UnsetType):
        changes["max_parallel"] = found.max_parallel or None
    if not isinstance(found.max_failed, UnsetType):
        changes["max_failed"] = found.max_failed
    if not isinstance(found.labels, UnsetType):
        changes["labels"] = found.labels
    return changes


def _read(body: bytes) -> _Changes:
    """Read a body. Raises Malformed for what is not JSON, ValidationError for other JSON."""
    text = body.removeprefix(BOM)
    offset = len(body) - len(text)
    if not text.strip(SPACE):
        raise Malformed("the body is empty", 0)
    if (position := utf8_error(text)) is not None:
        raise not_utf8(position + offset)
    try:
        return _decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as exc:
        raise syntax(exc, text, offset) from None


def wrong_changes(detail: str) -> Problem:
    """Make a 400 for a body that changes nothing."""
    hint = 'send an object such as {"max_parallel": 4, "max_failed": "5%", "labels": {"team": "a"}}'
    return malformed(f"{detail}; {hint}")
