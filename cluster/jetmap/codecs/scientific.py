"""Kinds for NumPy's arrays and scalars, and for pandas' moments. Neither is imported here."""

from __future__ import annotations

import sys
from typing import Any

from .walk import Kind, cannot_travel, register, tag


def scientific_kind(value: Any) -> Kind | None:
    """Find the kind of a NumPy or pandas value; None for values of other packages.

    Raises TypeError for one that cannot travel.
    """
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        return _numpy_kind(value)
    if package == "pandas":
        return _pandas_kind(value)
    if package == "pyarrow":
        return _table_kind(value)
    return None


def _numpy_kind(value: Any) -> Kind:
    numpy = sys.modules["numpy"]
    cls = type(value)
    if issubclass(cls, numpy.generic):
        if issubclass(cls, (numpy.str_, numpy.bytes_)):
            return _TEXT
        if value.dtype.hasobject or cls.__module__ != "numpy" or cls is numpy.record:
            raise TypeError(cannot_travel(value, "convert it with .item() or .tolist()"))
        return _SCALAR
    if cls is numpy.ndarray:
        if value.dtype.hasobject:
            raise TypeError(cannot_travel(value, "its dtype is object; convert it with .tolist()"))
        return _ARRAY
    if cls is numpy.dtype or isinstance(value, numpy.dtype):
        raise TypeError(cannot_travel(value, "send its name: str(value)"))
    hint = "convert it with numpy.asarray() or .tolist()" if hasattr(value, "tolist") else ""
    raise TypeError(cannot_travel(value, hint))


def _pandas_kind(value: Any) -> Kind:
    pandas = sys.modules["pandas"]
    if value is pandas.NaT:
        return _NAT
    if type(value) is pandas.Timestamp:
        return _TIMESTAMP
    if type(value) is pandas.Timedelta:
        return _TIMEDELTA
    if value is getattr(pandas, "NA", None):
        return _NA
    kind = _table_kind(value)
    if kind is None:
        do = "send value.to_numpy() or value.tolist()" if hasattr(value, "to_numpy") else ""
        raise TypeError(cannot_travel(value, do))
    return kind


def _table_kind(value: Any) -> Kind | None:
    from .tables import table_kind  # After the walk's kinds, which it needs.

    return table_kind(value)


def library(name: str) -> Any:
    """Import a library for a value that arrived. Raises ValueError if it is not installed."""
    library = sys.modules.get(name)
    if library is None:
        try:
            library = __import__(name)
        except ImportError:
            raise ValueError(f"a value of {name}, which is not installed here") from None
    return library


def _take_array(value: Any) -> list[Any]:
    """Return an array's dtype, shape, order and bytes."""
    numpy = sys.modules["numpy"]
    flags = value.flags
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    descr = numpy.lib.format.dtype_to_descr(value.dtype)
    return [tag(descr), list(value.shape), order, value.tobytes(order)]


def _make_array(descr: Any, shape: list[int], order: Any, data: bytes) -> Any:
    numpy = library("numpy")
    dtype = numpy.lib.format.descr_to_dtype(descr)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return numpy.ndarray(tuple(shape), dtype, buffer=bytearray(data), order=order)


def array_parts(value: Any) -> tuple[list[Any], memoryview] | None:
    """Return an array's dtype, shape and order, and its bytes without a copy.

    None for any other value, and for an array whose bytes do not lie together.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.hasobject:
        return None
    flags = value.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        return None
    order = "C" if flags.c_contiguous else "F"
    descr = numpy.lib.format.dtype_to_descr(value.dtype)
    return [descr, list(value.shape), order], memoryview(value.reshape(-1, order="A").view("u1"))


def array_on(head: list[Any], data: memoryview) -> Any:
    """Return an array whose bytes are ``data``; it can be written to only if those can."""
    descr, shape, order = head
    numpy = library("numpy")
    dtype = numpy.lib.format.descr_to_dtype(descr)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return numpy.ndarray(tuple(shape), dtype, buffer=data, order=order)


def _take_scalar(value: Any) -> list[Any]:
    return _take_array(sys.modules["numpy"].asarray(value))


def _take_text(value: Any) -> list[Any]:
    plain = str.__str__(value) if isinstance(value, str) else bytes(value)
    return [tag(plain)]


def _make_text(content: str | bytes) -> Any:
    numpy = library("numpy")
    return numpy.str_(content) if isinstance(content, str) else numpy.bytes_(content)


def _take_timestamp(value: Any) -> list[Any]:
    """Return the moment in UTC (or without a zone), its unit, its zone and its fold."""
    return [int(value.asm8.view("i8")), value.unit, tag(value.tzinfo), value.fold]


def _make_timestamp(count: int, unit: str, zone: Any, fold: int) -> Any:
    pandas, numpy = library("pandas"), library("numpy")
    moment = pandas.Timestamp(numpy.datetime64(count, unit)).as_unit(unit)
    if zone is not None:
        return moment.tz_localize("UTC").tz_convert(zone)
    return moment.replace(fold=fold) if fold else moment


def _take_timedelta(value: Any) -> list[Any]:
    return [int(value.asm8.view("i8")), value.unit]


def _make_timedelta(count: int, unit: str) -> Any:
    pandas, numpy = library("pandas"), library("numpy")
    return pandas.Timedelta(numpy.timedelta64(count, unit)).as_unit(unit)


def _plain_moment(count: int, unit: str, zone: Any = None, fold: int = 0) -> str:
    found = _make_timestamp(count, unit, zone, fold)
    return str(found.isoformat())


def _plain_duration(count: int, unit: str) -> str:
    return str(_make_timedelta(count, unit).isoformat())


_ARRAY = Kind("ndarray", _take_array, _make_array, lambda *parts: _make_array(*parts).tolist())
_SCALAR = Kind(
    "scalar",
    _take_scalar,
    lambda *parts: _make_array(*parts)[()],
    lambda *parts: _make_array(*parts).tolist(),
)
_TEXT = Kind("numpy text", _take_text, _make_text, lambda content: content)
_TIMESTAMP = Kind("Timestamp", _take_timestamp, _make_timestamp, _plain_moment)
_TIMEDELTA = Kind("Timedelta", _take_timedelta, _make_timedelta, _plain_duration)
_NAT = Kind("NaT", lambda value: [], lambda: library("pandas").NaT, lambda: None)
_NA = Kind("NA", lambda value: [], lambda: library("pandas").NA, lambda: None)
for _kind in (_ARRAY, _SCALAR, _TEXT, _TIMESTAMP, _TIMEDELTA, _NAT, _NA):
    register(_kind)
