"""Kinds for pandas' frames, series and indexes, and for Arrow's tables. Neither is imported here.

A column travels as its NumPy array where it has one. A value is made again where it is taken, and
refused if that is not the same.
"""

from __future__ import annotations

import sys
from typing import Any

from .scientific import library
from .walk import Kind, cannot_travel, register, tag


def table_kind(value: Any) -> Kind | None:
    """Find the kind of a table of pandas or pyarrow; None for their other values."""
    package = type(value).__module__.partition(".")[0]
    known = sys.modules[package]
    if package == "pyarrow":
        if type(value) is known.Table:
            return _ARROW_TABLE
        return _ARROW_BATCH if type(value) is known.RecordBatch else None
    if type(value) is known.DataFrame:
        return _FRAME
    if type(value) is known.Series:
        return _SERIES
    return _INDEX if isinstance(value, known.Index) else None


# pandas


def _take_frame(value: Any) -> list[Any]:
    columns = [_column(value.iloc[:, at].array) for at in range(value.shape[1])]
    parts = [_axis(value.index), _axis(value.columns), columns, value.attrs]
    return _checked(value, _make_frame, parts)


def _make_frame(index: Any, columns: Any, arrays: Any, attrs: Any) -> Any:
    pandas = library("pandas")
    axis = _make_index(*index)
    series = {at: pandas.Series(_array(*each), axis) for at, each in enumerate(arrays)}
    made = pandas.DataFrame(series, index=axis)
    made.columns = _make_index(*columns)
    made.attrs = attrs
    return made


def _take_series(value: Any) -> list[Any]:
    parts = [_axis(value.index), _column(value.array), value.name, value.attrs]
    return _checked(value, _make_series, parts)


def _make_series(index: Any, array: Any, name: Any, attrs: Any) -> Any:
    made = library("pandas").Series(_array(*array), _make_index(*index), name=name)
    made.attrs = attrs
    return made


def _take_index(value: Any) -> list[Any]:
    return _checked(value, _make_index, _axis(value))


def _axis(index: Any) -> list[Any]:
    pandas = sys.modules["pandas"]
    if type(index) is pandas.RangeIndex:
        return ["range", index.start, index.stop, index.step, index.name]
    if type(index) is pandas.MultiIndex:
        levels = [_axis(level) for level in index.levels]
        return ["multi", levels, list(map(_numpy().asarray, index.codes)), list(index.names)]
    return ["index", _column(index.array), index.name, getattr(index, "freqstr", None)]


def _make_index(form: str, *parts: Any) -> Any:
    pandas = library("pandas")
    if form == "range":
        *limits, name = parts
        return pandas.RangeIndex(*limits, name=name)
    if form == "multi":
        levels, codes, names = parts
        levels = [_make_index(*level) for level in levels]
        return pandas.MultiIndex(levels=levels, codes=codes, names=names)
    column, name, frequency = parts
    array = _array(*column)
    made = pandas.Index(array, dtype=array.dtype, name=name)
    return type(made)(made, freq=frequency, name=name) if frequency is not None else made


def _column(array: Any) -> list[Any]:
    """Describe a column: a NumPy array, or the elements and their type."""
    pandas = sys.modules["pandas"]
    dtype = array.dtype
    if isinstance(dtype, _numpy().dtype):
        plain = array.to_numpy()
        return ["objects", list(plain)] if dtype.hasobject else ["numpy", plain]
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return ["zoned", dtype.tz, dtype.unit, array.asi8]
    if isinstance(dtype, pandas.CategoricalDtype):
        return ["categories", _axis(array.categories), bool(array.ordered), array.codes]
    return ["other", str(dtype), list(array)]


def _array(form: str, *parts: Any) -> Any:
    """Make a column again."""
    pandas, numpy = library("pandas"), _numpy()
    last = parts[-1]
    if form == "numpy":
        return last
    if form == "objects":
        made = numpy.empty(len(last), object)
        for at, element in enumerate(last):
            made[at] = element
        # Otherwise pandas would guess a type.
        return pandas.arrays.NumpyExtensionArray(made)
    if form == "zoned":
        zone, unit, _ = parts
        dtype = pandas.DatetimeTZDtype(unit, zone)
        naive = pandas.Series(last.view(f"M8[{unit}]"))
        return naive.dt.tz_localize("UTC").astype(dtype).array
    if form == "categories":
        categories, ordered, codes = parts
        index = _make_index(*categories)
        return pandas.Categorical.from_codes(codes, index, ordered=ordered)
    return pandas.array(last, dtype=parts[0])


def _checked(value: Any, make: Any, parts: list[Any]) -> list[Any]:
    """Return the tagged parts of a value. Raises TypeError if they do not make the same value."""
    tagged = tag(parts)
    try:
        is_same = _same(value, make(*parts))
    except Exception:
        is_same = False
    if not is_same:
        why = "its columns or index have a type of their own; send value.to_dict() or its arrays"
        raise TypeError(cannot_travel(value, why))
    return list(tagged)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    pandas = sys.modules["pandas"]
    if isinstance(a, pandas.Index):
        facts = [
            (list(each.names), each.dtype, getattr(each, "freq", None), each.nlevels)
            for each in (a, b)
        ]
        return facts[0] == facts[1] and bool(a.equals(b))
    if not a.equals(b) or a.attrs != b.attrs or a.flags != b.flags or not _same(a.index, b.index):
        return False
    if isinstance(a, pandas.Series):
        return bool(a.dtype == b.dtype) and type(a.name) is type(b.name) and a.name == b.name
    return list(a.dtypes) == list(b.dtypes) and _same(a.columns, b.columns)


def _numpy() -> Any:
    return library("numpy")


def _plain_frame(index: Any, columns: Any, arrays: Any, attrs: Any) -> dict[Any, Any]:
    names = _plain_index(*columns)
    return {name: _plain_column(*each) for name, each in zip(names, arrays, strict=True)}


def _plain_series(index: Any, array: Any, name: Any, attrs: Any) -> list[Any]:
    return _plain_column(*array)


def _plain_index(form: str, *parts: Any) -> list[Any]:
    if form == "range":
        return list(range(*parts[:3]))
    if form == "multi":
        levels = [_plain_index(*level) for level in parts[0]]
        rows = zip(*parts[1], strict=True)
        return [tuple(levels[at][code] for at, code in enumerate(row)) for row in rows]
    return _plain_column(*parts[0])


def _plain_column(form: str, *parts: Any) -> list[Any]:
    if form == "categories":
        names = _plain_index(*parts[0])
        return [names[code] if code >= 0 else None for code in parts[-1]]
    return list(parts[-1])


# Arrow


def _take_arrow(value: Any) -> list[Any]:
    """Return a table in the format of Arrow's streams."""
    arrow = sys.modules["pyarrow"]
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, value.schema) as writer:
        writer.write(value)
    return [sink.getvalue().to_pybytes()]


def _make_table(data: bytes) -> Any:
    return _arrow().ipc.open_stream(data).read_all()


def _make_batch(data: bytes) -> Any:
    return _arrow().ipc.open_stream(data).read_next_batch()


def _arrow() -> Any:
    return library("pyarrow")


_FRAME = Kind("DataFrame", _take_frame, _make_frame, _plain_frame)
_SERIES = Kind("Series", _take_series, _make_series, _plain_series)
_INDEX = Kind("Index", _take_index, _make_index, _plain_index)
_ARROW_TABLE = Kind("Table", _take_arrow, _make_table, lambda data: _make_table(data).to_pylist())
_ARROW_BATCH = Kind(
    "RecordBatch", _take_arrow, _make_batch, lambda data: _make_batch(data).to_pylist()
)
for _kind in (_FRAME, _SERIES, _INDEX, _ARROW_TABLE, _ARROW_BATCH):
    register(_kind)
