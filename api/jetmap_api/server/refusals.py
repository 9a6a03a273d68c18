"""Refusals that the server makes before there is a request."""

from __future__ import annotations

from jetmap_api.problems import Problem, malformed

SLOW_HEAD = Problem(
    408,
    "slow-head",
    "The request does not arrive",
    "its head took longer than the setting header_timeout allows: send it at once",
)
TOO_MANY_CONNECTIONS = Problem(
    503,
    "too-many-connections",
    "Too many connections are open",
    "all of them are in the middle of a request (setting max_connections, or the process's "
    "descriptors): try again when some have ended",
    headers=((b"retry-after", b"1"),),
)
# What the parser says of the preface of HTTP/2, for which it has no exception of its own.
HTTP_2 = "Pause on PRI/Upgrade"
SHORT_BODY = malformed("the body ends before the length that the request announces")


def connect() -> Problem:
    return Problem(405, "method-not-allowed", "This is not a proxy", "CONNECT is not served")


def other_version() -> Problem:
    return Problem(505, "http-version", "Another version of HTTP", "send HTTP/1.1 or 1.0")


def two_hosts() -> Problem:
    # Layers in front of this server may read the other one.
    detail = "it has more than one Host header"
    return Problem(400, "not-http", "This is not an HTTP/1.1 request", detail)


def too_many_headers(most: int) -> Problem:
    return Problem(
        431,
        "too-many-headers",
        "The request's head is too large",
        f"it has more than {most} headers",
    )


def too_many_requests(most: int) -> Problem:
    return Problem(
        400,
        "too-many-requests-at-once",
        "Too many requests at once",
        f"more than {most} requests wait for the answers before them",
    )


def head_too_large(limit: int, *, is_address: bool) -> Problem:
    """Make the refusal of a head. is_address: the address takes most of it."""
    setting = "max_header_bytes"
    if is_address:
        status, slug, title = 414, "uri-too-long", "The request's address is too long"
    else:
        status, slug, title = 431, "head-too-large", "The request's head is too large"
    detail = f"address and headers may take {limit} bytes together (setting {setting})"
    return Problem(status, slug, title, detail, setting=setting, limit=limit)


def framing_too_large(limit: int) -> Problem:
    """Make the refusal of a body whose chunks cost too much."""
    setting = "max_header_bytes"
    detail = f"its chunk extensions or trailers take more than {limit} bytes ({setting})"
    return malformed(detail, setting=setting, limit=limit)


def unknown_coding(codings: bytes) -> Problem:
    """Make the refusal of a body in another transfer coding than ``chunked`` (RFC 9112, 6.1)."""
    detail = f"send the body without Transfer-Encoding: {codings.decode('latin-1')}"
    return Problem(501, "unsupported-transfer-encoding", "Unknown transfer coding", detail)


def refusal_of(exc: Exception) -> Problem:
    """Find the refusal in a parser's error: a callback raised it, or the bytes are not HTTP."""
    cause = exc.__context__
    if isinstance(cause, Problem):
        return cause
    detail = str(exc if cause is None else cause)
    if cause is None and detail == HTTP_2:
        detail = "HTTP/2 is not served here: use HTTP/1.1, or a proxy that speaks HTTP/2 to clients"
    return Problem(400, "not-http", "This is not an HTTP/1.1 request", detail)
