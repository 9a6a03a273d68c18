"""The option ``batch``: what the decorator refuses, and the types of an element."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jetmap import task
from jetmap.functions.batching import LINGER, Batching
from jetmap.functions.by_value import pickled, unpickled
from jetmap.functions.task import Function, find


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def read(items: Sequence[str]) -> list[float]:
    return [float(item) for item in items]


def bare(items: list) -> list:  # type: ignore[type-arg]
    return items


def array(items: list[float]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(items)


def typed_array(items: list[float]) -> npt.NDArray[np.float64]:
    return np.array(items)


def untyped(items):  # type: ignore[no-untyped-def]
    return items


def takes_one(item: int) -> list[int]:
    return [item]


def returns_one(items: list[int]) -> int:
    return sum(items)


def returns_nothing(items: list[int]) -> None: ...


def takes_a_set(items: set[int]) -> list[int]:
    return list(items)


def made(f: Any, **options: Any) -> Function:
    return Function(f, name=f"batching.{f.__name__}", batching=Batching(64, **options))


@pytest.mark.parametrize(
    ("f", "item", "value"),
    [
        (doubled, {"type": "integer"}, {"type": "integer"}),
        (read, {"type": "string"}, {"type": "number"}),
        (bare, {}, {}),
        (untyped, {}, {}),
        (array, {"type": "number"}, {}),
        (typed_array, {"type": "number"}, {}),
    ],
)
def test_schemas_are_those_of_an_element(f: Any, item: Any, value: Any) -> None:
    info = made(f).info()
    assert (info.item, info.value, info.batch, info.linger) == (item, value, 64, LINGER)
    function = made(f)
    assert function.item.decode_list(b"[]", "json") == []


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (takes_one, r"takes_one \(item: int\): a batch function takes a list of items: write "
                    r"item: list\[int\], or leave batch=… out"),
        (takes_a_set, r"write items: list\["),
        (returns_one, r"returns_one \(-> int\): a batch function returns a list \(or a NumPy "
                      r"array\), with one value for each item: write -> list\["),
        (returns_nothing, "a batch function returns a list"),
    ],
)  # fmt: skip
def test_what_takes_or_returns_no_list_is_refused_at_the_decorator(f: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        task(f, batch=64)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"linger": 0.1}, TypeError, "linger=0.1 is for batches: give batch=…, the items of one"),
        ({"batch": 0}, ValueError, "batch must be a number of items from 1 to 16,384, not 0"),
        ({"batch": 2.5}, ValueError, "batch must be a number of items"),
        ({"batch": True}, TypeError, "batch must be a number of items"),
        ({"batch": 8, "linger": -1}, ValueError, "linger must be a number of seconds from 0 to 60"),
        ({"batch": 8, "linger": "1"}, TypeError, "linger must be a number of seconds"),
    ],
)
def test_wrong_numbers_are_refused_at_the_decorator(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        task(**options)


def test_a_local_function_is_checked_with_the_names_around_it() -> None:
    class Item:
        pass

    with pytest.raises(TypeError, match=r"write item: list\["):

        @task(batch=8)  # type: ignore[arg-type]
        def wrong(item: Item) -> list[int]:
            return [1]

    @task(batch=8)
    def later(items: list[Unknown]) -> list[int]:  # type: ignore[name-defined]  # noqa: F821
        return [1]

    assert find(later).announced().refusal.endswith("name 'Unknown' is not defined")


def test_the_function_itself_is_unchanged_and_travels_by_value() -> None:
    decorated = task(batch=8, linger=0.5, name="batching.decorated")(doubled)
    assert decorated is doubled and decorated([1, 2]) == [2, 4]
    function = find(doubled)
    assert function is not None and function.batching is not None
    again = unpickled(pickled(function), "doubled").batching
    assert again is not None and (again.size, again.linger) == (8, 0.5)
    batching = pickle.loads(pickle.dumps(function.batching))
    assert (batching.size, batching.linger) == (8, 0.5)
