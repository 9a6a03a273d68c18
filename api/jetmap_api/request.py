"""Read what a ``POST /map/{function}`` asks for, apart from its body; read query parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl

import msgspec

from jetmap import bounds
from jetmap.dispatch.tolerance import Tolerance
from jetmap.functions.kwargs import misfit
from jetmap.wire.messages import Format

from .asgi import ARRIVED, Scope
from .bodies import Framing, read_length
from .media import Answer, Body, answer_type, body_type
from .problems import Problem, bad_parameter

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

Errors = Literal["fail", "collect"]

ERRORS: tuple[Errors, ...] = ("fail", "collect")
ORDERS = ("finish", "input")


@dataclass(frozen=True, slots=True)
class Options:
    """The query of a map.

    errors: whether the first failing item ends the map. ordered: outcomes of a stream come in input
    order. timeout: seconds for the map. kwargs: a JSON object. max_failed: items that may fail.
    values: whether the function's values are wanted; else null stands for each. labels: names and
    values by which people find the map. max_parallel: cores that it may use at most.
    """

    errors: Errors = "fail"
    ordered: bool = False
    timeout: float | None = None
    kwargs: bytes = b""
    max_failed: Tolerance | None = None
    values: bool = True
    labels: dict[str, str] | None = None
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """The ``Prefer`` header (RFC 7240).

    respond_async: 202 is welcome. wait: seconds that the client is willing to wait for another
    answer.
    """

    respond_async: bool = False
    wait: int | None = None

    def applied(self) -> bytes:
        """Return the value of ``Preference-Applied``."""
        applied = [b"respond-async"] if self.respond_async else []
        if self.wait is not None:
            applied.append(b"wait=%d" % self.wait)
        return b", ".join(applied)


class MapRequest(msgspec.Struct, frozen=True):
    """A map's request, apart from its body.

    body, answer: their media. format: the encoding of items and values, the body's. framing: of
    the body. prefer: None if it says nothing that matters here. after_body: a stream of outcomes
    begins once the body is there, for proxies that stop sending a body when the answer begins.
    """

    body: Body
    answer: Answer
    format: Format
    options: Options
    framing: Framing
    prefer: Preference | None = None
    after_body: bool = False

    @property
    def kwargs(self) -> bytes:
        """The keyword-only parameters in ``format``."""
        kwargs = self.options.kwargs
        return encoded_kwargs(kwargs, self.format) if kwargs else kwargs

    @property
    def fail(self) -> bool:
        """True if the first failing item ends the map."""
        return self.options.errors == "fail" and self.options.max_failed is None


PLAIN = Options()
# The headers that are read here. A browser sends a dozen others, which are passed over at once.
_READ = frozenset(
    {
        *(b"content-type", b"accept", b"content-length", b"transfer-encoding", b"upgrade"),
        *(b"prefer", b"content-encoding", b"x-jetmap-answer"),
    }
)


def read_request(scope: Scope) -> MapRequest:
    """Read the headers and the query. Raises Problem: 400 for a parameter, 406, 415."""
    media = accept = length = prefer = None
    chunked = upgrade = after_body = False
    for name, value in scope["headers"]:
        if name not in _READ:
            continue
        if name == b"content-type":
            media = value if media is None else media + b", " + value
        elif name == b"accept":
            accept = value if accept is None else accept + b"," + value
        elif name == b"content-length":
            length = read_length(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"upgrade":
            upgrade = True
        elif name == b"prefer":
            prefer = value if prefer is None else prefer + b"," + value
        elif name == b"content-encoding":
            check_encoding(value)
        elif name == b"x-jetmap-answer":
            after_body = value.strip().lower() == b"after-body"
    query = scope["query_string"]
    options = read_options(query) if query else PLAIN
    preference = None if prefer is None else read_preference(prefer)
    body, answer = body_type(media), answer_type(accept)
    framing = Framing(length, chunked, upgrade, ARRIVED in scope)
    format: Format = "msgpack" if body == "msgpack" else "json"
    return MapRequest(body, answer, format, options, framing, preference, after_body)


@lru_cache(maxsize=64)
def read_preference(header: bytes) -> Preference | None:
    """Read ``respond-async`` and ``wait=N``; ignore everything else, as RFC 7240 says.

    The first preference of a name counts.
    """
    seen: dict[str, str] = {}
    for part in header.decode("latin-1").split(","):
        name, _, value = part.partition(";")[0].partition("=")
        seen.setdefault(name.strip().lower(), value.strip().strip('"'))
    respond_async = "respond-async" in seen
    wait = _whole_seconds(seen.get("wait", ""))
    return Preference(respond_async, wait) if respond_async or wait is not None else None


def _whole_seconds(digits: str) -> int | None:
    """Read the seconds of ``wait``, up to the most that are allowed."""
    if not (digits.isascii() and digits.isdigit()):
        return None
    most = int(bounds.POLL.most)
    return min(int(digits), most) if len(digits.lstrip("0")) < 10 else most


def encoded_kwargs(kwargs: bytes, format: Format) -> bytes:
    """Encode a JSON object of keyword parameters in ``format``. Raises Problem: 400."""
    if not kwargs or format == "json":
        return kwargs
    try:
        return msgspec.msgpack.encode(msgspec.json.decode(kwargs))
    except OverflowError as exc:
        raise bad_parameter(
            "kwargs", f"{exc}: MessagePack holds integers of 64 bits; send a JSON body"
        ) from exc


@lru_cache(maxsize=64)
def read_options(query: bytes) -> Options:
    """Read the query of a map. Raises Problem: 400, naming the parameter."""
    errors: Errors = "fail"
    ordered = False
    timeout: float | None = None
    kwargs = b""
    tolerance: Tolerance | None = None
    values = True
    labels: dict[str, str] | None = None
    max_parallel: int | None = None
    for name, value in _pairs(query):
        if name == "errors":
            errors = _errors(value)
        elif name == "order":
            if value not in ORDERS:
                raise bad_parameter(name, "order is finish or input")
            ordered = value == "input"
        elif name == "timeout":
            timeout = number(name, value, bounds.TIMEOUT)
        elif name == "kwargs":
            kwargs = read_kwargs(value)
        elif name == "max_failed":
            tolerance = read_tolerance(value)
        elif name == "values":
            values = read_switch(name, value)
        elif name == "labels":
            labels = read_labels(value)
        elif name == "max_parallel":
            max_parallel = whole_number(name, value, bounds.PARALLEL_OR_NONE) or None
        else:
            raise bad_parameter(
                name,
                f"unknown parameter {name!r}: use errors, order, timeout, max_failed, values, "
                "labels, max_parallel or kwargs",
            )
    return Options(errors, ordered, timeout, kwargs, tolerance, values, labels, max_parallel)


def read_switch(name: str, value: str) -> bool:
    """Read ``true`` or ``false``. Raises Problem: 400."""
    if value not in ("true", "false"):
        raise bad_parameter(name, f"{name} is true or false")
    return value == "true"


def read_labels(value: str) -> dict[str, str]:
    """Read labels such as ``customer=7,team=a``. Raises Problem: 400."""
    try:
        return bounds.parse_labels(value)
    except ValueError as exc:
        raise bad_parameter("labels", str(exc)) from exc


def read_tolerance(value: str) -> Tolerance:
    """Read ``max_failed``. Raises Problem: 400."""
    try:
        return Tolerance(value)
    except ValueError as exc:
        raise bad_parameter("max_failed", str(exc)) from exc


def parameters(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    """Read a query that may only have known parameters. Raises Problem: 400."""
    found = dict(_pairs(query)) if query else {}
    for name in found:
        if name not in known:
            raise unknown_parameter(name, known)
    return found


def check_query(query: bytes) -> None:
    """Check that a query is UTF-8 and names nothing twice. Raises Problem: 400."""
    for _ in _pairs(query):
        pass


def unknown_parameter(name: str, known: tuple[str, ...]) -> Problem:
    """Make the refusal of a parameter that the endpoint does not have. known: those it has."""
    allowed = " or ".join(filter(None, (", ".join(known[:-1]), *known[-1:])))
    advice = f"use {allowed}" if known else "there are none here"
    return bad_parameter(name, f"unknown parameter {name!r}: {advice}")


def number(name: str, value: str, bound: bounds.Bound) -> float:
    """Read a number. Raises Problem: 400."""
    found = bound.parse(value)
    if found is None:
        raise out_of_bounds(name, bound)
    return found


def whole_number(name: str, value: str, bound: bounds.Whole) -> int:
    """Read a whole number. Raises Problem: 400."""
    found = bound.parse(value)
    if found is None:
        raise out_of_bounds(name, bound)
    return found


def out_of_bounds(name: str, bound: bounds.Bound) -> Problem:
    """Make the refusal of a number."""
    detail = f"{name} must be {bound}"
    return bad_parameter(name, detail, minimum=bound.least, maximum=bound.most)


def _pairs(query: bytes) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
        )
    except UnicodeDecodeError as exc:
        raise bad_parameter("query", "the query is not percent-encoded UTF-8") from exc
    for name, value in pairs:
        if name in seen:
            raise bad_parameter(name, f"{name} is given twice")
        seen.add(name)
        yield name, value


def check_encoding(encoding: bytes) -> None:
    if encoding.strip().lower() != b"identity":
        raise Problem(
            415,
            "unsupported-encoding",
            "Compressed body",
            f"send the body without Content-Encoding: {encoding.decode('latin-1')}",
        )


def _errors(value: str) -> Errors:
    for known in ERRORS:
        if value == known:
            return known
    raise bad_parameter("errors", "errors is fail or collect")


def read_kwargs(value: str) -> bytes:
    encoded = value.encode()
    try:
        msgspec.json.decode(encoded, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise bad_parameter(
            "kwargs", f"kwargs is a JSON object of keyword parameters, percent-encoded: {exc}"
        ) from exc
    return encoded


def check_kwargs(cluster: Cluster, function: str, kwargs: bytes) -> bool:
    """Compare ``?kwargs=`` with what the function's workers announce.

    kwargs: a JSON object, or nothing. Returns False if no worker has announced the function yet.
    Raises Problem: 400, naming the parameter and what is accepted.
    """
    info = cluster.info(function)
    if info is None:
        return False
    found = misfit(info, msgspec.json.decode(kwargs) if kwargs else {})
    if found is not None:
        raise bad_parameter("kwargs", found.message, keyword=found.parameter)
    return True
