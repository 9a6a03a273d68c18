"""Outcomes for the caller, and their translation between JSON and MessagePack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from jetmap.codecs.walk import decode_plainly
from jetmap.wire.arrays import NULL, join
from jetmap.wire.messages import ErrorRecord, Format

_decode: dict[Format, Callable[[bytes], Any]] = {
    "json": msgspec.json.Decoder().decode,
    "msgpack": msgspec.msgpack.Decoder().decode,
    "python": decode_plainly,
    "pickle": msgspec.msgpack.Decoder().decode,  # Only of jobs without values.
}
_encode = {"json": msgspec.json.Encoder().encode, "msgpack": msgspec.msgpack.Encoder().encode}


class Outcomes(Protocol):
    """The outcomes of ``count`` consecutive items from ``start`` on; maps yield this shape.

    values: one encoded array, null if the item failed. errors: a record for each of those.
    """

    @property
    def start(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def values(self) -> bytes: ...
    @property
    def errors(self) -> list[ErrorRecord]: ...


@dataclass(frozen=True, slots=True)
class Translated:
    """Outcomes in another encoding."""

    start: int
    count: int
    values: bytes
    errors: list[ErrorRecord]


def translate(outcomes: Outcomes, source: Format, target: Format) -> Outcomes:
    """Translate outcomes to ``target``; a value it cannot express becomes an error of its item.

    From JSON, bytes stay base64 text. To JSON, NaN and the infinities are errors, not null. Values
    that a Python program wrote without an annotation are shown as the nearest JSON type.
    """
    values: list[Any] = _decode[source](outcomes.values)
    try:
        encoded = _encode_strictly(values, target)
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return _one_by_one(outcomes, values, target)
    return Translated(outcomes.start, outcomes.count, encoded, outcomes.errors)


def _one_by_one(outcomes: Outcomes, values: list[Any], target: Format) -> Outcomes:
    encoded: list[bytes] = []
    errors = list(outcomes.errors)
    for index, value in enumerate(values, outcomes.start):
        try:
            encoded.append(_encode_strictly(value, target))
        except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
            encoded.append(NULL[target])
            errors.append(ErrorRecord(index, "unencodable", type(exc).__name__, str(exc)))
    errors.sort(key=lambda record: record.index)
    return Translated(outcomes.start, outcomes.count, join(encoded, target), errors)


def _encode_strictly(value: Any, target: Format) -> bytes:
    encoded = _encode[target](value)
    if target == "json" and b"null" in encoded and _holds_nan(value):
        raise ValueError("NaN and infinity do not exist in JSON: accept application/msgpack")
    return encoded


def _holds_nan(value: Any) -> bool:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, float):
            if not math.isfinite(value):
                return True
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return False
