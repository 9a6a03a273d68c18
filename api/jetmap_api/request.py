"""What one ``POST /map/{function}`` asks for, apart from its body."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qsl

import msgspec

from jetmap.messages import Format

from .asgi import Scope
from .media import Answer, Body, answer_type, body_type
from .problems import Problem, bad_parameter

Errors = Literal["fail", "collect"]

ERRORS: tuple[Errors, ...] = ("fail", "collect")
ORDERS = ("finish", "input")


@dataclass(frozen=True, slots=True)
class Options:
    """The query. errors: whether the first failing item ends the map. ordered: outcomes of a
    stream come in input order. timeout: seconds for the map. kwargs: a JSON object."""

    errors: Errors = "fail"
    ordered: bool = False
    timeout: float | None = None
    kwargs: bytes = b""


@dataclass(frozen=True, slots=True)
class MapRequest:
    """body, answer: their media. length: of the body, where the client says it."""

    body: Body
    answer: Answer
    options: Options
    length: int | None

    @property
    def format(self) -> Format:
        """The encoding in which items and values travel: the body's."""
        return "msgpack" if self.body == "msgpack" else "json"

    @property
    def kwargs(self) -> bytes:
        """The keyword-only parameters in ``format``."""
        kwargs = self.options.kwargs
        if not kwargs or self.body != "msgpack":
            return kwargs
        try:
            return msgspec.msgpack.encode(msgspec.json.decode(kwargs))
        except OverflowError as exc:
            raise bad_parameter(
                "kwargs", f"{exc}: MessagePack holds integers of 64 bits; send a JSON body"
            ) from exc

    @property
    def fail(self) -> bool:
        """Whether the first failing item ends the map."""
        return self.options.errors == "fail"


PLAIN = Options()


def read_request(scope: Scope) -> MapRequest:
    """Raises Problem: 400 for a parameter, 406, 415."""
    media = accept = length = encoding = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            media = value
        elif name == b"accept":
            accept = value if accept is None else accept + b"," + value
        elif name == b"content-length":
            length = int(value) if value.isdigit() else None
        elif name == b"content-encoding":
            encoding = value
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise Problem(
            415,
            "unsupported-encoding",
            "Compressed body",
            f"send the body without Content-Encoding: {encoding.decode('latin-1')}",
        )
    query = scope["query_string"]
    options = read_options(query) if query else PLAIN
    return MapRequest(body_type(media), answer_type(accept), options, length)


@lru_cache(maxsize=64)
def read_options(query: bytes) -> Options:
    """Raises Problem: 400, naming the parameter."""
    errors: Errors = "fail"
    ordered = False
    timeout: float | None = None
    kwargs = b""
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
        if name == "errors":
            errors = _errors(value)
        elif name == "order":
            if value not in ORDERS:
                raise bad_parameter(name, "order is finish or input")
            ordered = value == "input"
        elif name == "timeout":
            timeout = _timeout(value)
        elif name == "kwargs":
            kwargs = _kwargs(value)
        else:
            raise bad_parameter(
                name, f"there is no parameter {name!r}: use errors, order, timeout or kwargs"
            )
    return Options(errors, ordered, timeout, kwargs)


def _errors(value: str) -> Errors:
    for known in ERRORS:
        if value == known:
            return known
    raise bad_parameter("errors", "errors is fail or collect")


def _timeout(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise bad_parameter("timeout", "timeout is a number of seconds above 0")
    return seconds


def _kwargs(value: str) -> bytes:
    encoded = value.encode()
    try:
        msgspec.json.decode(encoded, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise bad_parameter(
            "kwargs", f"kwargs is a JSON object of keyword parameters, percent-encoded: {exc}"
        ) from exc
    return encoded
