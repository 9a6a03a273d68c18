"""Kinds for the standard library's types."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

from .walk import Kind, cannot_travel, items_of, register, sequence, tag

_FACTORIES = {cls.__name__: cls for cls in (int, float, str, bytes, bool, list, dict, set, tuple)}
_ADDRESSES = {
    cls.__name__: cls
    for cls in (
        ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network,
        ipaddress.IPv6Network, ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    )
}  # fmt: skip
_PATHS: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath,
    )
}  # fmt: skip


def _big_int(value: int) -> list[Any]:
    return [value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)]


def _memory(value: memoryview) -> list[Any]:
    if value.format != "B" or value.ndim != 1:
        raise TypeError(cannot_travel(value, "send its bytes: value.tobytes()"))
    return [value.tobytes()]


def _zone(value: dt.timezone) -> list[Any]:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
    return [_microseconds(offset), *name]


def _make_zone(microseconds: int, *name: str) -> dt.timezone:
    offset = dt.timedelta(microseconds=microseconds)
    return dt.timezone(offset, *name) if name or offset else dt.UTC


def _zone_info(value: zoneinfo.ZoneInfo) -> list[Any]:
    if value.key is None:
        raise TypeError(cannot_travel(value, "it has no key; make it by its name: ZoneInfo('…')"))
    return [value.key]


def _moment(value: dt.datetime | dt.time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, tag(value.tzinfo)]


def _make_datetime(text: str, fold: int, zone: Any) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _make_time(text: str, fold: int, zone: Any) -> dt.time:
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _microseconds(value: dt.timedelta) -> int:
    return value // dt.timedelta(microseconds=1)


def _default(value: defaultdict[Any, Any]) -> list[Any]:
    factory: Any = value.default_factory
    if factory is None:
        return [None, items_of(value.items())]
    name = getattr(factory, "__name__", "")
    if _FACTORIES.get(name) is not factory:
        raise TypeError(
            cannot_travel(value, "its default_factory is not a builtin type; send dict(…)")
        )
    return [name, items_of(value.items())]


def _make_default(name: str | None, pairs: list[Any]) -> defaultdict[Any, Any]:
    return defaultdict(None if name is None else _FACTORIES[name], pairs)


register(Kind("tuple", sequence, tuple), tuple)
register(Kind("set", sequence, set), set)
register(Kind("frozenset", sequence, frozenset), frozenset)
register(Kind("int", _big_int, lambda data: int.from_bytes(data, "big", signed=True)))
register(
    Kind(
        "str",
        lambda value: [value.encode("utf-8", "surrogatepass")],
        lambda data: data.decode("utf-8", "surrogatepass"),
    )
)
register(Kind("bytearray", lambda value: [bytes(value)], bytearray), bytearray)
register(Kind("memoryview", _memory, memoryview), memoryview)
register(Kind("complex", lambda value: [value.real, value.imag], complex), complex)
register(Kind("range", lambda v: [tag(v.start), tag(v.stop), tag(v.step)], range), range)
register(Kind("slice", lambda v: [tag(v.start), tag(v.stop), tag(v.step)], slice), slice)
register(Kind("datetime", _moment, _make_datetime), dt.datetime)
register(Kind("time", _moment, _make_time), dt.time)
register(Kind("date", lambda value: [value.isoformat()], dt.date.fromisoformat), dt.date)
register(
    Kind(
        "timedelta",
        lambda value: [_microseconds(value)],
        lambda microseconds: dt.timedelta(microseconds=microseconds),
    ),
    dt.timedelta,
)
register(Kind("timezone", _zone, _make_zone), dt.timezone)
register(Kind("zone", _zone_info, zoneinfo.ZoneInfo), zoneinfo.ZoneInfo)
register(Kind("Decimal", lambda value: [str(value)], decimal.Decimal), decimal.Decimal)
register(
    Kind("Fraction", lambda v: [tag(v.numerator), tag(v.denominator)], fractions.Fraction),
    fractions.Fraction,
)
register(Kind("UUID", lambda v: [v.bytes], lambda data: uuid.UUID(bytes=data)), uuid.UUID)
register(Kind("deque", lambda v: [*sequence(v), v.maxlen], deque), deque)
register(Kind("OrderedDict", lambda v: [items_of(v.items())], OrderedDict), OrderedDict)
register(
    Kind("Counter", lambda v: [items_of(v.items())], lambda pairs: Counter(dict(pairs))), Counter
)
register(Kind("defaultdict", _default, _make_default), defaultdict)
register(Kind("array", lambda v: [v.typecode, v.tolist()], array), array)
register(
    Kind(
        "address",
        lambda value: [type(value).__name__, str(value)],
        lambda name, text: _ADDRESSES[name](text),
    ),
    *_ADDRESSES.values(),
)
register(
    Kind(
        "path",
        lambda value: [type(value).__name__, str(value)],
        lambda name, text: _PATHS[name](text),
        lambda name, text: text,
    ),
    *_PATHS.values(),
)
