"""The table of docs/types.md: every example travels as its row says."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import re
import threading
import uuid
import zoneinfo
from array import array
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest

from alike import alike
from jetmap.codecs import codec_for
from jetmap.functions.pickled import PickledCodec
from jetmap.functions.picklers import Home

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "types.md"
ROW = re.compile(r"\| ([^|`]+) \| `(.+?)` \| (kept|refused) \| (kept|refused) \| (.+) \|")


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


class Pair(NamedTuple):
    left: int
    right: int


class Struct(msgspec.Struct):
    inside: Any


class Model(pydantic.BaseModel):
    inside: Any


class Text(str):
    pass


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x


def object_array(items: list[Any]) -> Any:
    made = np.empty(len(items), object)
    made[:] = items
    return made


def arrow_table(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").table(columns)


NAMES: dict[str, Any] = {
    name: getattr(module, name)
    for module, names in [
        (collections, "Counter OrderedDict defaultdict deque"),
        (dt, "UTC date datetime time timedelta"),
        (decimal, "Decimal"), (fractions, "Fraction"), (ipaddress, "ip_address"),
        (pathlib, "Path"), (uuid, "UUID"), (zoneinfo, "ZoneInfo"), (threading, "Lock"),
        (re, "compile"), (np, "arange float32"), (pd, "DataFrame Index Series Timestamp"),
    ]
    for name in names.split()
} | {
    "array": array, "arrow_table": arrow_table, "object_array": object_array, "Color": Color,
    "Model": Model, "Pair": Pair, "Plain": Plain, "Point": Point, "Struct": Struct, "Text": Text,
}  # fmt: skip


def rows() -> list[Any]:
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return [pytest.param(*row[1:], id=row[0]) for row in found]


def test_the_table_is_read() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| both trust |")[2].partition("\n\n")[0]
    assert len(rows()) == table.count("\n") - 1 > 40


@pytest.mark.parametrize(("example", "trusted", "tagged", "json"), rows())
def test_a_row(example: str, trusted: str, tagged: str, json: str) -> None:
    value = eval(example, dict(NAMES))  # Written by us, in our own documentation.
    anything, pickled = codec_for(Any), PickledCodec(Home())
    assert (
        _kept(value, lambda: pickled.decode(pickled.encode(value, "pickle"), "pickle")) == trusted
    )
    assert (
        _kept(value, lambda: anything.decode(anything.encode(value, "python"), "python")) == tagged
    )
    try:
        written = f"`{anything.encode(value, 'json').decode()}`"
    except (TypeError, ValueError, OverflowError):
        written = "refused"
    assert written == json


def _kept(value: Any, travelled: Any) -> str:
    try:
        found = travelled()
    except TypeError as error:
        assert "cannot travel" in str(error)
        return "refused"
    assert type(found) is type(value)
    if type(value).__module__.startswith(("pandas", "pyarrow")):
        assert found.equals(value) if hasattr(value, "equals") else found == value
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        assert repr(found) == repr(value)
    elif isinstance(value, list) and isinstance(value[0], type):
        assert found == value
    elif not isinstance(value, Plain):
        assert alike(found, value)
    return "kept"
