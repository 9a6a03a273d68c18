"""Read what a ``POST /jobs/{function}`` asks for, apart from its body."""

from __future__ import annotations

from dataclasses import dataclass

from jetmap import bounds
from jetmap.wire.messages import Format

from .asgi import Scope
from .bodies import Framing
from .media import Body, body_type
from .problems import bad_parameter
from .request import (
    MapRequest,
    check_encoding,
    encoded_kwargs,
    number,
    parameters,
    read_kwargs,
    read_labels,
    read_switch,
    read_tolerance,
    whole_number,
)
from .security import CALLER
from .signer import caller_of

PARAMETERS = (
    "timeout",
    "kwargs",
    "ttl",
    "reserve",
    "max_failed",
    "values",
    "labels",
    "max_parallel",
)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The job to make.

    framing: of its body. keywords: its keyword-only parameters, a JSON object. timeout: seconds for
    the whole job, from its start. ttl: seconds that it is kept after its end. reserve: bytes of the
    store. caller, key: the owner, and its Idempotency-Key. max_failed: items that may fail.
    values: whether the function's values are stored. labels: names and values by which people find
    it. max_parallel: cores that it may use at most.
    """

    body: Body
    framing: Framing
    keywords: bytes = b""
    timeout: float | None = None
    ttl: float | None = None
    reserve: int | None = None
    caller: str = ""
    key: str | None = None
    max_failed: str | None = None
    values: bool = True
    labels: dict[str, str] | None = None
    max_parallel: int | None = None

    @property
    def format(self) -> Format:
        return "msgpack" if self.body == "msgpack" else "json"

    @property
    def kwargs(self) -> bytes:
        """The keyword-only parameters in ``format``."""
        return encoded_kwargs(self.keywords, self.format)


def read_job_request(scope: Scope) -> JobRequest:
    """Read the headers and the query. Raises Problem: 400 for a parameter, 415."""
    media = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            media = value if media is None else media + b", " + value
        elif name == b"content-encoding":
            check_encoding(value)
    body = body_type(media)
    given = parameters(scope["query_string"], PARAMETERS)
    caller, key = identity(scope)
    return JobRequest(
        body,
        Framing.of(scope["headers"]),
        read_kwargs(given["kwargs"]) if "kwargs" in given else b"",
        number("timeout", given["timeout"], bounds.TIMEOUT) if "timeout" in given else None,
        number("ttl", given["ttl"], bounds.TTL) if "ttl" in given else None,
        whole_number("reserve", given["reserve"], bounds.SIZE) if "reserve" in given else None,
        caller,
        key,
        read_tolerance(given["max_failed"]).text if "max_failed" in given else None,
        read_switch("values", given.get("values", "true")),
        read_labels(given["labels"]) if "labels" in given else None,
        whole_number("max_parallel", given["max_parallel"], bounds.PARALLEL_OR_NONE) or None
        if "max_parallel" in given
        else None,
    )


def job_of_map(request: MapRequest, scope: Scope) -> JobRequest:
    """Make the job that replaces a map if its client prefers so."""
    caller, key = identity(scope)
    options = request.options
    return JobRequest(
        request.body,
        request.framing,
        options.kwargs,
        options.timeout,
        caller=caller,
        key=key,
        max_failed=options.max_failed.text if options.max_failed is not None else None,
        values=options.values,
        labels=options.labels,
        max_parallel=options.max_parallel,
    )


def identity(scope: Scope) -> tuple[str, str | None]:
    """Return the caller (the digest of its token, or ``anonymous``) and its Idempotency-Key.

    The key is a string, with or without quotes. Raises Problem: 400.
    """
    caller: str | None = scope.get(CALLER)
    key: str | None = None
    for name, value in scope["headers"]:
        if name == b"authorization" and caller is None:
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                caller = caller_of(token.strip())
        elif name == b"idempotency-key":
            if key is not None:
                raise bad_parameter("Idempotency-Key", "Idempotency-Key is given more than once")
            key = value.decode("latin-1").strip()
            if len(key) > 1 and key[0] == key[-1] == '"':
                key = key[1:-1]
            if not 0 < len(key) <= bounds.MOST_KEY:
                raise bad_parameter(
                    "Idempotency-Key",
                    f"Idempotency-Key is a text of 1 to {bounds.MOST_KEY} characters",
                )
    return caller or "anonymous", key
