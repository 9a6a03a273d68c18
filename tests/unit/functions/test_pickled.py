"""The format "pickle": equal in value and type, or refused by name; one bad item costs itself."""

from __future__ import annotations

import io
import multiprocessing
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import untyped_functions as untyped
from alike import alike
from hypotheses import examples
from jetmap.codecs.walk import CODE
from jetmap.functions.pickled import RUN_ITEMS, PickledCodec, PicklingFunction
from jetmap.functions.picklers import Home
from jetmap.functions.task import find
from jetmap.wire import arrays
from untyped_functions import PARTLY, VALUES, Unloadable

quick = examples(100)


def function(f: Any) -> PicklingFunction:
    known = find(f)
    assert known is not None
    made = known.pickling()
    assert isinstance(made, PicklingFunction) and known.pickling() is made
    return made


def there_and_back(items: list[Any]) -> list[Any]:
    codec = PickledCodec(Home())
    return codec.decode_list(codec.encode_list(items, "pickle"), "pickle")


some = st.lists(st.sampled_from(VALUES), max_size=3)
values = st.recursive(
    st.sampled_from(VALUES) | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=8,
)


@quick
@given(st.lists(values, max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_lists_and_their_parts(items: list[Any], a: int, b: int) -> None:
    codec = PickledCodec(Home())
    encoded = codec.encode_list(items, "pickle")
    assert alike(codec.decode_list(encoded, "pickle"), items)
    prepared = codec.prepare(items, "pickle")
    assert alike(
        codec.decode_list(codec.encode_prepared(prepared[a:b], "pickle"), "pickle"), items[a:b]
    )
    each = arrays.split(encoded, "pickle")
    assert alike([codec.decode(bytes(element), "pickle") for element in each], items)


def test_builtins_share_a_pickle_and_others_travel_alone() -> None:
    codec = PickledCodec(Home())
    dicts = [{"id": n, "name": f"item {n}"} for n in range(5000)]
    first, second = codec.encode_list(dicts, "pickle"), codec.encode_list(dicts, "pickle")
    assert len(second) <= len(first) < 5000 * 25
    assert 5000 / RUN_ITEMS <= arrays.length(second) < 60
    assert arrays.length(codec.encode_list([1, np.arange(3), "a"], "pickle")) == 3
    # A few large ones do not share one either, since a chunk may need only some of them.
    assert arrays.length(codec.encode_list(["a" * 40_000] * 4, "pickle")) == 4


def test_a_pickler_is_used_again_and_keeps_nothing_of_a_run() -> None:
    codec = PickledCodec(Home())
    item = {"id": 1, "shared": [1]}
    held = sys.getrefcount(item)
    for n in (1, 2, 3):
        encoded = codec.encode_list([item] * n, "pickle")
        assert sys.getrefcount(item) == held
        assert codec.decode_list(encoded, "pickle") == [item] * n
    with pytest.raises(TypeError):  # In the middle of a run, which leaves the pickler unusable.
        codec.encode_list([item, {"lock": threading.Lock()}], "pickle")
    assert codec.decode_list(codec.encode_list([item], "pickle"), "pickle") == [item]
    assert sys.getrefcount(item) == held


def test_threads_encode_with_one_codec() -> None:
    codec = PickledCodec(Home())
    lists = [[{"id": n, "of": k, "in": ["x" * (n % 7)]} for n in range(300)] for k in range(4)]
    found: list[list[list[Any]]] = [[] for _ in lists]

    def encode(k: int) -> None:
        for _ in range(30):
            found[k].append(codec.decode_list(codec.encode_list(lists[k], "pickle"), "pickle"))

    threads = [threading.Thread(target=encode, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[values] * 30 for values in lists]


def test_buffers_are_out_of_band_and_writable() -> None:
    (found,) = there_and_back([np.arange(10_000.0)])
    found += 1
    assert found[0] == 1 and found.flags.writeable
    frozen = np.arange(10_000.0)
    frozen.flags.writeable = False
    assert not there_and_back([frozen])[0].flags.writeable
    codec = PickledCodec(Home())
    (((_, kept), _),) = codec.prepare([np.arange(100_000.0)], "pickle")
    assert kept == b"", "it is copied once, when it is sent"
    strided = np.arange(20_000.0)[::2]
    assert alike(there_and_back([strided]), [strided])


@pytest.mark.parametrize("bad", [threading.Lock(), io.StringIO, sys.__stdout__, (n for n in "a")])
def test_what_cannot_travel_is_refused_by_name(bad: Any) -> None:
    if bad is io.StringIO:
        assert there_and_back([bad]) == [bad]
        return
    codec = PickledCodec(Home())
    for refuse in (codec.encode_list, codec.prepare):
        with pytest.raises(TypeError, match=rf"{type(bad).__qualname__} cannot travel; it cannot"):
            refuse([1, bad], "pickle")
    with pytest.raises(TypeError, match="cannot travel; it cannot be pickled"):
        function(untyped.option).kwargs.encode({"x": [bad]}, "pickle")


def test_a_connection_is_refused() -> None:
    reader, writer = multiprocessing.Pipe()
    with reader, writer, pytest.raises(TypeError, match="one end of a connection of this process"):
        there_and_back([{"end": reader}])


def test_too_deep() -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    assert there_and_back([deep]) == [deep]
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        there_and_back([deep])


def test_one_that_cannot_be_loaded() -> None:
    codec = PickledCodec(Home())
    encoded = codec.encode_list([1, Unloadable(5), 2], "pickle")
    with pytest.raises(OSError, match="no 5 here"):
        codec.decode_list(encoded, "pickle")
    first, _, last = arrays.split(encoded, "pickle")
    assert [codec.decode(bytes(each), "pickle") for each in (first, last)] == [1, 2]


@pytest.mark.parametrize("case", PARTLY, ids=lambda case: case[0].__name__)
def test_annotated_in_part(case: Any) -> None:
    f, value = case
    typed = function(f)
    encoded = typed.item.encode_list([value, value], "pickle")
    assert alike(typed.item.decode_list(encoded, "pickle"), [value, value])
    assert alike(typed.item.decode(typed.item.encode(value, "pickle"), "pickle"), value)


def test_open_parts_take_any_object_and_annotated_ones_their_type() -> None:
    typed = function(untyped.lists)
    odd = [np.array([None]), {untyped.Color}]
    encoded = typed.item.encode(odd, "pickle")
    assert alike(repr(typed.item.decode(encoded, "pickle")), repr(odd))
    with pytest.raises(ValueError, match="Expected `array`"):
        typed.item.decode_list(function(untyped.same).item.encode_list([7], "msgpack"), "pickle")


def test_other_formats_are_as_ever() -> None:
    codec = PickledCodec(Home())
    for format in ("json", "msgpack", "python"):
        items = [1, [2, "a"], {"b": None}]
        encoded = codec.encode_list(items, format)  # type: ignore[arg-type]
        assert codec.decode_list(encoded, format) == items  # type: ignore[arg-type]
        assert codec.decode(codec.encode(5, format), format) == 5  # type: ignore[arg-type]
        assert codec.prepare(items, format) == items  # type: ignore[arg-type]
    assert bytes([CODE]) in codec.encode((1,), "python") and codec.schema() == {}
