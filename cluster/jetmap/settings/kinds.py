"""The types of settings: each checks a value from an option, a variable or the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ByteSize, ValidationInfo, WrapValidator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from jetmap import bounds

CORES = re.compile(r"\d+|\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
ROOT_PATH = re.compile(r"(?=.{1,200}\Z)(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
POOL = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _split(value: object) -> object:
    """Split "a, b" into a list; lists stay as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _text(value: object) -> object:
    """Accept ``cores = 4`` in the file as "4"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(min(value, 1 << 64))  # Refused either way, and short.
    return value if isinstance(value, str) else bounds.shown(value)


def _cores(value: str) -> str:
    if not CORES.fullmatch(value) or (
        value.isdigit() and bounds.WORKERS.parse(value.lstrip("0") or "0") is None
    ):
        raise ValueError(
            f'must be a number of cores up to {bounds.WORKERS.most:,} ("4") '
            'or a list of cores ("0,2-3")'
        )
    return value


def _pool(value: str) -> str:
    if not POOL.fullmatch(value):
        raise ValueError("must be 1 to 64 letters, digits, - and _")
    return value


def _root_path(value: str) -> str:
    value = value.rstrip("/")
    if value and not ROOT_PATH.fullmatch(value):
        raise ValueError(
            'must be a path such as "/jetmap", of letters, digits, "-", ".", "_" and "~"'
        )
    return value


def _domain(value: str) -> str:
    if not re.fullmatch(r"[^\s.*>]{1,255}", value) or value == "API":
        raise ValueError("must be the name of a JetStream domain: one word without dots")
    return value


def without_password(url: str) -> str:
    """Return an address without its user and password, fit to be shown."""
    return re.sub(r"//[^/@]*@", "//…@", url) if "//" in url else re.sub(r"^[^@]*@", "…@", url)


def _urls(value: str) -> str:
    for url in value.split(","):
        if not re.match(r"(nats|tls)://[^/\s]+", url.strip()):
            raise ValueError(
                "must be a comma-separated list of nats:// or tls:// addresses, as in "
                f"nats://broker:4222, not {without_password(url.strip())!r}"
            )
    return value


def _file(value: str) -> str:
    path = Path(value)
    if not path.is_file():
        raise ValueError(f"names {value}, which is not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"names {value}, which this user may not read")
    return value


def _size(value: Any, handler: Any, info: ValidationInfo) -> int:
    if isinstance(value, bool):
        raise _out_of_bounds(bounds.SIZE, value)
    try:
        size = int(handler(value))
    except (OverflowError, ValueError):  # Pydantic's message would not name the limit.
        raise _out_of_bounds(bounds.SIZE, value) from None
    if not bounds.SIZE.least <= size <= bounds.SIZE.most:
        raise _out_of_bounds(bounds.SIZE, value)
    return size


def within(bound: bounds.Bound) -> BeforeValidator:
    """Check a number against its bound; variables give it as text."""

    def check(value: object) -> float:
        if isinstance(value, str):
            found = bound.parse(value.strip().replace("_", ""))
            if found is None:
                raise _out_of_bounds(bound, value)
            return found
        try:
            return bound.check("", value)
        except (TypeError, ValueError):
            raise _out_of_bounds(bound, value) from None

    return BeforeValidator(check)


def within_size(bound: bounds.Bound) -> AfterValidator:
    """Check a size against a bound of its own."""

    def check(value: int) -> int:
        if not bound.least <= value <= bound.most:
            raise _out_of_bounds(bound, value)
        return value

    return AfterValidator(check)


def _out_of_bounds(bound: bounds.Bound, value: object) -> PydanticCustomError:
    text = f"must be {bound}, not {bounds.shown(value)}"
    return PydanticCustomError("out_of_bounds", text.replace("{", "{{").replace("}", "}}"))


Words = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Timeout = Annotated[float, within(bounds.TIMEOUT)]
Seconds = Annotated[float, within(bounds.DURATION)]
Grace = Annotated[float, within(bounds.GRACE)]
Weight = Annotated[float, within(bounds.WEIGHT)]
Count = Annotated[int, within(bounds.COUNT)]
Replicas = Annotated[int, within(bounds.REPLICAS)]
Size = Annotated[ByteSize, WrapValidator(_size)]
Cores = Annotated[str, BeforeValidator(_text), AfterValidator(_cores)]
Port = Annotated[int, within(bounds.PORT)]
Patience = Annotated[float, within(bounds.CONNECTION)]
ReadableFile = Annotated[str, AfterValidator(_file)]
Addresses = Annotated[str, AfterValidator(_urls)]
Pool = Annotated[str, AfterValidator(_pool)]
Domain = Annotated[str, AfterValidator(_domain)]
RootPath = Annotated[str, AfterValidator(_root_path)]
Niceness = Annotated[int, within(bounds.NICE)]
Attempts = Annotated[int, within(bounds.ATTEMPTS)]
Depth = Annotated[int, within(bounds.DEPTH)]
Retention = Annotated[float, within(bounds.TTL)]
Login = Annotated[float, within(bounds.SESSION)]
HeadSize = Annotated[Size, within_size(bounds.HEAD)]
Rate = Annotated[int, within(bounds.RATE)]
Lines = Annotated[int, within(bounds.LINES)]
