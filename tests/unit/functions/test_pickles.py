"""Pickles between processes that trust each other: classes keep their identity."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from jetmap.functions.pickles import TooLong, dumps, find_class, loads

MOST = 1 << 20


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


def as_it_is(obj: Any) -> Any:
    return NotImplemented


def test_there_and_back() -> None:
    box = loads(dumps(Box([1, (2,)]), as_it_is, MOST))
    assert type(box) is Box and box.content == [1, (2,)]


def test_what_has_no_name_travels_by_value() -> None:
    class Local:
        size = 3

    assert loads(dumps(Local(), as_it_is, MOST)).size == 3
    assert loads(dumps(lambda n: n + 1, as_it_is, MOST))(2) == 3


def test_what_cannot_be_pickled_raises() -> None:
    with pytest.raises(TypeError, match="pickle"):
        dumps(Box(n for n in range(3)), as_it_is, MOST)


def test_no_more_is_pickled_than_may_be() -> None:
    class Counting:
        seen = 0

        def __reduce__(self) -> Any:
            type(self).seen += 1
            return bytes, (bytes(1000),)

    for value in ([Counting() for _ in range(100_000)], bytes(MOST), [lambda: 1, bytes(MOST)]):
        with pytest.raises(TooLong):
            dumps(value, as_it_is, MOST)
    assert Counting.seen < 2000


def test_a_reducer_is_asked_first() -> None:
    def reduce(obj: Any) -> Any:
        return (Box, ("instead",)) if isinstance(obj, Box) else NotImplemented

    assert loads(dumps([Box(1)], reduce, MOST))[0].content == "instead"
    assert loads(dumps([Box(1), lambda: 5], reduce, MOST))[1]() == 5


def test_names_of_the_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.Box = Box  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    # A worker's name for the script that is this process's own, and the name by ``python -m``.
    assert find_class("__mp_main__", "Box") is Box is find_class("__main__", "Box")
    with pytest.raises(ImportError):
        find_class("app.program", "Box")
    main.__spec__ = types.SimpleNamespace(name="app.program")  # type: ignore[assignment]
    assert find_class("app.program", "Box") is Box
    with pytest.raises(AttributeError, match="has no Nothing"):
        find_class(__name__, "Nothing")
