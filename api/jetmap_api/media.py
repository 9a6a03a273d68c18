"""Media types of bodies and answers."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from .problems import Problem

Body = Literal["json", "jsonl", "msgpack"]
Answer = Literal["json", "msgpack", "jsonl", "sse"]

BODY_TYPES: dict[str, Body] = {
    "application/json": "json",
    "application/msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
}

# In the order in which a wildcard chooses.
ANSWER_TYPES: dict[str, Answer] = {**BODY_TYPES, "text/event-stream": "sse"}

CONTENT_TYPES: dict[str, bytes] = {
    "json": b"application/json",
    "msgpack": b"application/msgpack",
    "jsonl": b"application/jsonl",
    "sse": b"text/event-stream",
}

ALL_ANSWERS: tuple[Answer, ...] = ("json", "msgpack", "jsonl", "sse")

ACCEPT_POST = (b"accept-post", ", ".join(BODY_TYPES).encode())

USE_JSON = (
    "send a JSON array as application/json (curl --json '[1, 2]' does, plain -d does not), "
    "JSON lines as application/jsonl, or an array as application/msgpack"
)


@lru_cache(maxsize=256)
def body_type(header: bytes | None) -> Body:
    """Return the kind of a body with this Content-Type. Raises Problem: 415."""
    if header is None:
        raise _unsupported("the request names no Content-Type")
    media, *parameters = header.decode("latin-1").lower().split(";")
    body = BODY_TYPES.get(media.strip())
    if body is None:
        raise _unsupported(f"the body's type is {media.strip() or 'empty'}")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('" ') not in ("utf-8", "utf8", "us-ascii"):
            raise _unsupported(f"the body's charset is {value}; JSON is UTF-8")
    return body


@lru_cache(maxsize=256)
def answer_type(
    header: bytes | None, offered: tuple[Answer, ...] = ALL_ANSWERS, advice: str = ""
) -> Answer:
    """Return the best of the offered answers that this Accept allows.

    Raises Problem: 406, which lists those offered; ``advice`` ends it.
    """
    if header is None or not header.strip():
        return "json"
    ranges: dict[str, float] = {}
    for part in header.decode("latin-1").lower().split(","):
        media, *parameters = part.split(";")
        ranges[media.strip()] = _quality(parameters)
    chosen: Answer | None = None
    best = 0.0
    for media, answer in ANSWER_TYPES.items():
        if answer not in offered:
            continue
        quality = next(
            (ranges[r] for r in (media, f"{media.partition('/')[0]}/*", "*/*") if r in ranges), 0.0
        )
        if quality > best:
            chosen, best = answer, quality
    if chosen is None:
        types = ", ".join(CONTENT_TYPES[answer].decode() for answer in offered)
        detail = f"Accept one of {types}{advice}"
        raise Problem(406, "not-acceptable", "No such answer", detail)
    return chosen


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _unsupported(found: str) -> Problem:
    return Problem(
        415, "unsupported-media-type", "Send JSON", f"{found}: {USE_JSON}", headers=[ACCEPT_POST]
    )
