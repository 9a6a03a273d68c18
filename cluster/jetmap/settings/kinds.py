"""The types of settings: each reads a value from an option, a variable or the file.

A type is ``Annotated`` with the functions that read it, one after the other. They raise ValueError
with what is wrong, as the end of a sentence that starts with the setting's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from jetmap import bounds
from jetmap.errors import ConfigurationError

Read = Callable[[Any], Any]

CORES = re.compile(r"\d+|\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
ROOT_PATH = re.compile(r"(?=.{1,200}\Z)(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
# What a browser can send as Origin: no path, and no user.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}  # Browsers leave them out.
POOL = re.compile(r"[A-Za-z0-9_-]{1,64}")
SIZE = re.compile(r"(\d*\.?\d+)\s*(?:([kmgtpe])(i?))?(b|bit)?", re.ASCII | re.IGNORECASE)
SWITCH = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class Secret:
    """A text that is not shown by accident, as in a log or a traceback."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret('…')"


def read_secret(value: Secret | None, path: str | None) -> str | None:
    """Return a secret, from the setting or its file."""
    if value is not None:
        return value.reveal()
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError([f"cannot read a secret from {path}: {exc}"]) from exc
    if not text:
        raise ConfigurationError([f"{path} is empty: write the secret into it"])
    return text


def readers_of(annotation: Any) -> tuple[list[Read], bool]:
    """Return the functions that read a value of this type, and whether it may be None."""
    optional = type(None) in get_args(annotation)
    if optional:
        annotation, _ = get_args(annotation)
    if get_origin(annotation) is Literal:
        return [one_of(*get_args(annotation))], optional
    if plain := {str: text, bool: switch, Secret: secret}.get(annotation):
        return [plain], optional
    return list(annotation.__metadata__), optional


def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {bounds.shown(value)}")
    return value


def secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return Secret(value)


def switch(value: object) -> bool:
    found = SWITCH.get(str(int(value)) if isinstance(value, bool) else str(value).lower())
    if found is None:
        raise ValueError(f"must be true or false, not {bounds.shown(value)}")
    return found


def one_of(*words: str) -> Read:
    def read(value: object) -> object:
        if value not in words:
            known = ", ".join(map(repr, words[:-1]))
            raise ValueError(f"must be {known} or {words[-1]!r}, not {bounds.shown(value)}")
        return value

    return read


def listed(value: object) -> list[str]:
    """Split "a, b" into a list; lists stay as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError(f"must be a list of strings, not {bounds.shown(value)}")
    return list(value)


def cores(value: object) -> str:
    """Read "4", "0,2-3", or ``cores = 4`` in the file."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(min(value, 1 << 64))  # Refused either way, and short.
    if (
        not isinstance(value, str)
        or not CORES.fullmatch(value)
        or (value.isdigit() and bounds.WORKERS.parse(value.lstrip("0") or "0") is None)
    ):
        raise ValueError(
            f'must be a number of cores up to {bounds.WORKERS.most:,} ("4") '
            f'or a list of cores ("0,2-3"), not {bounds.shown(value)}'
        )
    return value


def pool(value: str) -> str:
    if not POOL.fullmatch(value):
        raise ValueError(f"must be 1 to 64 letters, digits, - and _, not {bounds.shown(value)}")
    return value


def root_path(value: str) -> str:
    value = value.rstrip("/")
    if value and not ROOT_PATH.fullmatch(value):
        raise ValueError(
            'must be a path such as "/jetmap", of letters, digits, "-", ".", "_" and "~"'
        )
    return value


def origins(value: list[str]) -> list[str]:
    """Read origins, and write them as browsers do."""
    return [_origin(part) for part in value]


def _origin(value: str) -> str:
    if value in ("*", "null"):  # Pages in a sandbox, or of files, send "null".
        return value
    found = value.lower().removesuffix("/")
    if not ORIGIN.fullmatch(found) or not _has_port(found):
        raise ValueError(
            'must be origins such as "https://app.example.org" or "http://localhost:3000", '
            f'without a path, or "*" for any, not {bounds.shown(value)}'
        )
    return found.removesuffix(DEFAULT_PORTS.get(found.partition(":")[0], ""))


def domain(value: str) -> str:
    if not re.fullmatch(r"[^\s.*>]{1,255}", value) or value == "API":
        raise ValueError("must be the name of a JetStream domain: one word without dots")
    return value


def without_password(url: str) -> str:
    """Return an address without its user and password, fit to be shown."""
    return re.sub(r"//[^/@]*@", "//…@", url) if "//" in url else re.sub(r"^[^@]*@", "…@", url)


def _has_port(url: str) -> bool:
    """Return whether an address has a possible port, or none."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def urls(value: str) -> str:
    for url in value.split(","):
        if not re.fullmatch(r"(nats|tls)://[^/?#\s]+/?", url.strip()) or not _has_port(url.strip()):
            raise ValueError(
                "must be a comma-separated list of nats:// or tls:// addresses, as in "
                f"nats://broker:4222, not {without_password(url.strip())!r}"
            )
    return value


def is_file(path: str) -> bool:
    """Return whether this is a file that this user can reach.

    ``Path.is_file`` raises for names that are too long, or in a folder that may not be entered.
    """
    try:
        return Path(path).is_file()
    except OSError:
        return False


def file(value: str) -> str:
    if not is_file(value):
        raise ValueError(f"names {value}, which is not a file")
    if not os.access(value, os.R_OK):
        raise ValueError(f"names {value}, which this user may not read")
    return value


def size(value: object) -> int:
    """Read bytes, or a text such as "64KiB", "1.5GB"."""
    return _size(value, bounds.SIZE)


def size_or_zero(value: object) -> int:
    """Read a size that may be 0."""
    return _size(value, bounds.SIZE_OR_ZERO)


def none_if_zero(value: float) -> float | None:
    """Read 0 as 'not set', for settings that are off unless they are set."""
    return value or None


def _size(value: object, bound: bounds.Whole) -> int:
    found = value
    if isinstance(value, str):
        match = SIZE.fullmatch(value.strip().replace("_", "")) if len(value) < 40 else None
        if match is None:
            raise _out_of_bounds(bound, value)
        number, prefix, binary, unit = match.groups()
        factor = (1024 if binary else 1000) ** (" kmgtpe".index((prefix or " ").lower()))
        found = int(float(number) * factor) if prefix or "." in number else int(number)
        found = found // 8 if (unit or "").lower() == "bit" else found
    elif isinstance(value, float) and value.is_integer():
        found = int(value)
    try:
        return bound.check("", found)
    except (TypeError, ValueError):
        raise _out_of_bounds(bound, value) from None


def within(bound: bounds.Bound) -> Read:
    """Check a number against its bound; variables give it as text."""

    def read(value: object) -> float:
        if isinstance(value, str):
            found = bound.parse(value.strip().replace("_", ""))
            if found is None:
                raise _out_of_bounds(bound, value)
            return found
        try:
            return bound.check("", value)
        except (TypeError, ValueError):
            raise _out_of_bounds(bound, value) from None

    return read


def _out_of_bounds(bound: bounds.Bound, value: object) -> ValueError:
    return ValueError(f"must be {bound}, not {bounds.shown(value)}")


WordList = Annotated[list[str], listed]
Origins = Annotated[list[str], listed, origins]
Timeout = Annotated[float, within(bounds.TIMEOUT)]
Seconds = Annotated[float, within(bounds.DURATION)]
Grace = Annotated[float, within(bounds.GRACE)]
Weight = Annotated[float, within(bounds.WEIGHT)]
Count = Annotated[int, within(bounds.COUNT)]
Replicas = Annotated[int, within(bounds.REPLICAS)]
Shards = Annotated[int, within(bounds.SHARDS)]
Size = Annotated[int, size]
SizeOrZero = Annotated[int, size_or_zero]
# Off unless set, and with 0.
SizeOrOff = Annotated[int, size_or_zero, none_if_zero]
CountOrOff = Annotated[int, within(bounds.COUNT_OR_ZERO), none_if_zero]
SecondsOrOff = Annotated[float, within(bounds.BACKOFF), none_if_zero]
Cores = Annotated[str, cores]
Port = Annotated[int, within(bounds.PORT)]
Patience = Annotated[float, within(bounds.CONNECTION)]
ReadableFile = Annotated[str, text, file]
Addresses = Annotated[str, text, urls]
Pool = Annotated[str, text, pool]
Domain = Annotated[str, text, domain]
RootPath = Annotated[str, text, root_path]
Niceness = Annotated[int, within(bounds.NICE)]
Attempts = Annotated[int, within(bounds.ATTEMPTS)]
Depth = Annotated[int, within(bounds.DEPTH)]
Retention = Annotated[float, within(bounds.TTL)]
LoginSeconds = Annotated[float, within(bounds.SESSION)]
HeadSize = Annotated[int, size, within(bounds.HEAD)]
BytesPerSecond = Annotated[int, within(bounds.RATE)]
LineCount = Annotated[int, within(bounds.LINES)]
