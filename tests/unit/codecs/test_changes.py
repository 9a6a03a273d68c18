"""Differences between a value and what arrived."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from jetmap.codecs.changes import change, refuse_changes


@dataclass
class Point:
    x: Any


@pytest.mark.parametrize(
    "value", [None, 1, math.nan, "x", [1, [2]], {"a": {1: 2}}, Point([1, "b"]), (1, Point(2))]
)
def test_equal_values(value: Any) -> None:
    assert change(value, value) is None


@pytest.mark.parametrize(
    ("sent", "arrived", "path"),
    [
        (1, 1.0, ""),
        (True, 1, ""),
        ([1, (2,)], [1, [2]], "[1]"),
        ({"a": {1: 2}}, {"a": {"1": 2}}, "['a']"),
        ([1], [1, 2], ""),
        (Point([b"x"]), Point(["x"]), ".x[0]"),
        (Point({"a": 1}), Point({"a": 2}), ".x['a']"),
    ],
)
def test_the_first_difference_is_named(sent: Any, arrived: Any, path: str) -> None:
    found = change(sent, arrived)
    assert found is not None and found[0] == path


def test_a_change_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"type tuple cannot travel .* at `\$\.x`"):
        refuse_changes(Point((1,)), Point([1]))
    refuse_changes(Point([1]), Point([1]))
