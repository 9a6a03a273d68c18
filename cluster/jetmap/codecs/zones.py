"""Keep the offset of aware datetimes in MessagePack, whose timestamps are all in UTC.

msgspec writes each aware datetime as a timestamp. Only an encoding that has one is made again, with
the datetimes in another zone than UTC as ISO text, from which msgspec and pydantic decode the same
wall clock and offset.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import msgspec
from msgspec.msgpack import Ext

# What begins a timestamp of 4, 8 and 12 bytes. Other values may have these bytes, too.
_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")
_LAST = b"\xff"  # The code of timestamps, which all of these end with.
# Types that hold no datetime, or that MessagePack has and ``to_builtins`` would change.
_KEPT = (
    bytes, bytearray, memoryview, decimal.Decimal, uuid.UUID, dt.datetime, dt.date, dt.time,
    dt.timedelta, Ext, msgspec.Raw,
)  # fmt: skip
_SCALARS = frozenset((type(None), bool, int, float, str, *_KEPT)) - {dt.datetime}


def encode_with_offsets(value: Any, encoder: msgspec.msgpack.Encoder) -> bytes:
    """Encode a value whose datetimes keep their offsets.

    Raises TypeError for an offset that has seconds, which neither text nor pydantic have.
    """
    try:
        encoded = encoder.encode(value)
    except OverflowError:
        pass  # An integer over 64 bits, or a moment that is outside the years 1 to 9999 in UTC.
    else:
        if _LAST not in encoded or not any(mark in encoded for mark in _TIMESTAMPS):
            return encoded
    plain = msgspec.to_builtins(value, builtin_types=_KEPT, enc_hook=encoder.enc_hook)
    return encoder.encode(_with_texts(plain))


def _with_texts(value: Any) -> Any:
    """Replace the datetimes in a value of builtins that are not in UTC."""
    cls = type(value)
    if cls is dt.datetime:
        return value if value.tzinfo is dt.UTC else _text(value)
    if cls is dict:
        return {
            key if type(key) is str else _with_texts(key): (
                part if type(part) in _SCALARS else _with_texts(part)
            )
            for key, part in value.items()
        }
    if cls is list:
        if _SCALARS.issuperset(map(type, value)):
            return value
        return [_with_texts(part) for part in value]
    # A tuple can be the key of a dict, too.
    return tuple([_with_texts(part) for part in value]) if cls is tuple else value


def _text(value: dt.datetime) -> Any:
    """Return a datetime in another zone than UTC as text; others as they are."""
    offset = value.utcoffset()
    if not offset:
        return value
    if offset.seconds % 60 or offset.microseconds:
        raise TypeError(
            f"{value!r} is {offset} from UTC, an offset with seconds, so it cannot travel as an "
            "annotated datetime; convert it with .astimezone(), or leave out the annotation"
        )
    return value.isoformat()
