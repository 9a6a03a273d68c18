"""Values that were put: what goes in comes out, and arrays are not copied."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from jetmap.codecs import types
from jetmap.functions import constants
from jetmap.functions.constants import ALIGN, Content, LoadedConstants, dump, load
from jetmap.functions.function import Function
from jetmap.wire.constants import WHOLE, Constant, pack_kwargs


def joined(content: Content) -> memoryview:
    data = bytearray(content.size)
    for offset, part in content:
        raw = memoryview(part).cast("B")
        data[offset : offset + len(raw)] = raw
    return memoryview(bytes(data))


@dataclass
class Point:
    x: int
    y: Any


class Odd:
    """Pickle knows it, a walk does not."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and other.n == self.n


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize(
    "value",
    [None, 0, "text", b"", (1, {2}), {"a": [dt.date(2026, 1, 1), 2**80]}, Point(1, (2, 3))],
    ids=repr,
)
def test_a_value_comes_out_as_it_went_in(value: Any, pickled: bool) -> None:
    found = load(joined(dump(value, pickled=pickled)), trusted=pickled)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_a_view_that_nobody_can_write_to(order: Any, pickled: bool) -> None:
    array = np.array([[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]] * 1000, order=order)
    data = joined(dump(array, pickled=pickled))
    found = load(data, trusted=pickled)
    assert (found == array).all() and found.dtype == array.dtype
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert np.shares_memory(found, np.frombuffer(data, "u1")) and not found.flags.writeable
    assert found.ctypes.data % 8 == np.frombuffer(data, "u1").ctypes.data % 8, "it is aligned"


@pytest.mark.parametrize("array", [np.arange(10)[::2], np.array([], "M8[us]"), np.zeros((), "i2")])
def test_odd_arrays_come_out_too(array: Any) -> None:
    found = load(joined(dump(array, pickled=False)), trusted=False)
    assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()


def test_arrays_inside_a_value_are_views_where_it_is_pickled() -> None:
    value = {"a": np.arange(5000), "b": [np.ones(5000)]}
    found = load(joined(dump(value, pickled=True)), trusted=True)
    assert not found["a"].flags.writeable and found["b"][0].sum() == 5000
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 1


def test_a_pickle_is_loaded_only_by_who_trusts_its_caller() -> None:
    content = dump(Odd(1), pickled=True)
    assert content.is_pickled and load(joined(content), trusted=True) == Odd(1)
    with pytest.raises(PermissionError, match="--trust-pickle"):
        load(joined(content), trusted=False)


def test_the_callers_script_runs_only_if_a_value_needs_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A script without a guard would start its cluster again."""
    ran: list[str] = []

    def run(path: str) -> Any:
        ran.append(path)
        return SimpleNamespace(Odd=Odd)

    monkeypatch.setattr(constants, "running_main", lambda: "/home/script.py")
    monkeypatch.setattr(Odd, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Odd", Odd, raising=False)
    plain, own = dump([1, 2], pickled=True), dump(Odd(1), pickled=True)
    monkeypatch.setattr(constants, "running_main", lambda: None)
    monkeypatch.setattr(types, "run_script", run)
    assert load(joined(plain), trusted=True) == [1, 2] and ran == []
    assert load(joined(own), trusted=True) == Odd(1) and ran == ["/home/script.py"]


@pytest.mark.parametrize("pickled", [True, False])
def test_a_value_that_cannot_travel_is_refused(pickled: bool) -> None:
    with pytest.raises(TypeError, match=r"the value cannot be put: .*generator"):
        dump((n for n in range(3)), pickled=pickled)


def test_sections_are_aligned() -> None:
    content = Content("pickle", [b"p", b"q" * 100, b"r"])
    assert [offset % ALIGN for offset, _ in content] == [0] * 4
    assert content.size == len(joined(content))


def look(i: int, *, table: Any, by: int = 1) -> Any:
    return table


class Desk:
    """The constants of a worker, and how often each was read."""

    def __init__(self, **values: Any) -> None:
        self.data = {name: joined(dump(value, pickled=True)) for name, value in values.items()}
        self.reads: list[str] = []
        self.constants = LoadedConstants(self.read)
        self.function = Function(look)

    def read(self, constant: Constant) -> memoryview:
        self.reads.append(constant.digest)
        if constant.digest not in self.data:
            raise LookupError("its host does not have it")
        return self.data[constant.digest]

    def decode(self, rest: dict[str, Any], map: str = "m", **digests: str) -> dict[str, Any]:
        constants = {name: Constant(digest, 1) for name, digest in digests.items()}
        encoded = msgspec.msgpack.encode(rest) if rest else b""
        filled = self.constants.filled(self.function, map, trusted=True)
        assert filled.item is self.function.item
        return filled.kwargs.decode(pack_kwargs(encoded, constants), "msgpack")


def test_a_function_gets_values_beside_its_other_parameters() -> None:
    desk = Desk(d1=Point(1, 2))
    found = desk.decode({"by": 5}, table="d1")
    assert found == {"by": 5, "table": Point(1, 2)}
    assert desk.decode({}, table="d1")["table"] is found["table"], "it is decoded once"
    assert desk.reads == ["d1"]
    desk.constants.drop("d1")
    assert desk.decode({}, table="d1")["table"] is not found["table"]


@pytest.mark.parametrize(
    ("rest", "digests", "message"),
    [
        ({}, {"table": "gone"}, "'table' cannot be loaded: its host does not have it"),
        ({"by": "x"}, {"table": "d1"}, "Expected `int`"),
        ({"table": 1}, {"table": "d1"}, "unknown field"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_says_why(
    rest: dict[str, Any], digests: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Desk(d1=1).decode(rest, **digests)


def test_all_keyword_parameters_may_be_one_constant() -> None:
    desk = Desk()
    encoded = msgspec.msgpack.encode({"table": [1, 2], "by": 7})
    desk.data["all"] = joined(Content("kwargs", [encoded]))
    first = desk.decode({}, **{WHOLE: "all"})
    assert first == {"table": [1, 2], "by": 7} == desk.decode({}, **{WHOLE: "all"})
    assert desk.reads == ["all"]
    first["table"].append(3)
    assert desk.decode({}, "another map", **{WHOLE: "all"})["table"] == [1, 2]
    for n in range(10):
        desk.decode({}, f"m{n}", **{WHOLE: "all"})
    assert len(desk.constants._kwargs) == 4
    desk.constants.drop("all")
    assert not desk.constants._kwargs


def test_a_value_may_be_put_beside_large_parameters() -> None:
    desk = Desk(d1=Point(1, 2))
    desk.data["all"] = joined(Content("kwargs", [msgspec.msgpack.encode({"by": 7})]))
    found = desk.decode({}, **{WHOLE: "all", "table": "d1"})
    assert found == {"by": 7, "table": Point(1, 2)}


def test_only_parameters_of_the_function_can_be_left_out() -> None:
    function = Function(look)
    with pytest.raises(TypeError, match=r"look\(\) got an unexpected keyword argument 'other'"):
        function.kwargs_without({"other"})
    assert function.kwargs_without(["table"]).decode(b"", "msgpack") == {}
    with pytest.raises(ValueError, match="table"):
        function.kwargs.decode(b"", "msgpack")
