"""Tables without an annotation: pandas' and Arrow's, or refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pandas as pd
import pytest

from jetmap.codecs.tables import table_kind
from jetmap.codecs.walk import decode_plainly, encode_walked, restore, tag

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=restore).decode

days = pd.date_range("2026", periods=2, freq="D", name="day")
FRAMES = {
    "plain": pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, None]}),
    "moments": pd.DataFrame({"t": pd.to_datetime(["2020", "2021"]), "z": days.tz_localize("UTC")}),
    "zones": pd.DataFrame({"z": days.tz_localize("Europe/Berlin")}, index=days),
    "categories": pd.DataFrame({"k": pd.Categorical(["a", None], ["b", "a"], ordered=True)}),
    "nullable": pd.DataFrame({"i": pd.array([1, None], dtype="Int64")}),
    "objects": pd.DataFrame({"o": pd.Series([(1,), {2}], dtype=object)}),
    "same names": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "levels": pd.DataFrame({("a", 1): [1], ("b", 2): [2]}),
    "empty": pd.DataFrame(),
    "no columns": pd.DataFrame(index=range(3)),
}
SERIES = {
    "named": pd.Series([1, 2], name="n", index=["x", "y"]),
    "mixed": pd.Series([True, None, "x", dt.date(2020, 1, 1)], dtype=object, name=(1, 2)),
}
INDEXES = {
    "range": pd.RangeIndex(1, 9, 2, name="r"),
    "text": pd.Index(["a", "b"]),
    "levels": pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["x", None]),
    "steps": pd.timedelta_range("1s", periods=3),
    "categories": pd.CategoricalIndex(["a"]),
}


def travelled(value: Any) -> Any:
    return _decode(encode_walked(tag(value), _encode))


def plainly(value: Any) -> Any:
    return decode_plainly(encode_walked(tag(value), _encode))


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    value = FRAMES[name]
    found = travelled(value)
    pd.testing.assert_frame_equal(found, value, check_freq=True)
    assert type(found.columns) is type(value.columns)


@pytest.mark.parametrize("name", SERIES)
def test_series(name: str) -> None:
    value = SERIES[name]
    pd.testing.assert_series_equal(travelled(value), value)
    assert list(map(type, travelled(value))) == list(map(type, value))


@pytest.mark.parametrize("name", INDEXES)
def test_indexes(name: str) -> None:
    value = INDEXES[name]
    found = travelled(value)
    pd.testing.assert_index_equal(found, value, exact=True)
    assert getattr(found, "freq", None) == getattr(value, "freq", None)


@pytest.mark.parametrize(
    "value",
    [
        pd.Series(pd.period_range("2020", periods=2)),
        pd.Series([1]).set_flags(allows_duplicate_labels=False),
    ],
    ids=["periods", "flags"],
)
def test_what_would_change_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        tag(value)


def test_attributes_are_kept() -> None:
    value = pd.DataFrame({"a": [1]})
    value.attrs = {"unit": (1, "m")}
    assert travelled(value).attrs == {"unit": (1, "m")}


def test_other_languages_get_columns() -> None:
    assert plainly(FRAMES["plain"])["a"] == [1, 2]
    assert plainly(FRAMES["categories"]) == {"k": ["a", None]}
    assert plainly(FRAMES["levels"]) == {("a", 1): [1], ("b", 2): [2]}
    assert plainly(SERIES["named"]) == [1, 2]
    assert plainly(INDEXES["range"]) == [1, 3, 5, 7]


def test_arrow_tables() -> None:
    arrow = pytest.importorskip("pyarrow")
    for value in (arrow.table({"a": [1, None], "b": ["x", "y"]}), arrow.record_batch({"a": [1]})):
        found = travelled(value)
        assert type(found) is type(value) and found.equals(value)
        assert plainly(value)[0]["a"] == 1
    with pytest.raises(TypeError, match="cannot travel"):
        tag(arrow.array([1]))
    assert table_kind(arrow.array([1])) is None
