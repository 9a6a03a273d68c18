"""Differences between a value and what arrived."""

from __future__ import annotations

import math
import re
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pydantic
import pytest

from jetmap.codecs.changes import change, refuse_changes


@dataclass
class Point:
    x: Any


@dataclass(slots=True)
class Slotted:
    x: Any


class Model(pydantic.BaseModel):
    x: Any

    @cached_property
    def twice(self) -> Any:
        return self.x * 2


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
        (Slotted((1,)), Slotted([1]), ".x"),
        (deque([(1,)]), deque([[1]]), "[0]"),
        (Point(deque([1], 3)), Point(deque([1])), ".x"),
        (defaultdict(list), defaultdict(int), ""),
        (re.compile("a", re.I), re.compile("a"), ""),
    ],
)
def test_the_first_difference_is_named(sent: Any, arrived: Any, path: str) -> None:
    found = change(sent, arrived)
    assert found is not None and found[0] == path


def test_a_change_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"type tuple cannot travel .* at `\$\.x`"):
        refuse_changes(Point((1,)), Point([1]))
    refuse_changes(Point([1]), Point([1]))


@pytest.mark.parametrize(
    ("sent", "arrived", "said"),
    [
        (re.compile("a", re.I), re.compile("a"), r"pattern has no flags .* leave out"),
        ([deque([1], 3)], [deque([1])], r"at `\$\[0\]`: an annotated deque has no maxlen"),
        (defaultdict(lambda: 5), defaultdict(int), "default_factory that its annotation names"),
        (Point(4), Point(0), r"at `\$\.x`: its model leaves it out"),
    ],
)
def test_what_would_be_lost_is_named(sent: Any, arrived: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        refuse_changes(sent, arrived)


def test_a_member_that_does_not_arrive_is_named_unless_it_is_computed() -> None:
    sent = Point(1)
    sent.more = 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"a value of type int would .* at `\$\.more`"):
        refuse_changes(sent, Point(1))
    model = Model(x=2)
    assert model.twice == 4
    refuse_changes(model, Model(x=2))
