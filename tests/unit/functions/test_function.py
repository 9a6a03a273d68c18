"""A registered function: its name, types and place. ``test_task.py`` has the decorator's view."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from jetmap.functions.function import Function, file_stamp


def double(n: int, *, plus: int = 0) -> int:
    """Double a number.

    Add something to it.
    """
    return 2 * n + plus


def test_its_place_and_types() -> None:
    function = Function(double)
    assert (function.module, function.qualname, function.file) == (__name__, "double", __file__)
    assert function.stamp == file_stamp(__file__) is not None
    assert not function.by_value and not function.local
    assert function.item.decode(b"7", "json") == 7
    assert function.kwargs.decode(b'{"plus": 1}', "json") == {"plus": 1}


def test_its_announcement() -> None:
    info = Function(double, name="twice", timeout=5).info()
    assert (info.name, info.timeout, info.attempts) == ("twice", 5.0, None)
    assert info.doc == "Double a number.\n\nAdd something to it."
    assert info.item == {"type": "integer"} and info.untyped == []


@pytest.mark.parametrize("name", ["", "7up", "a b", "ü", "a/b"])
def test_names_that_urls_and_subjects_cannot_carry(name: str) -> None:
    with pytest.raises(ValueError, match="is not a function name"):
        Function(double, name=name)


def test_a_type_that_is_unknown_is_named_at_first_use() -> None:
    def f(n: Unknown) -> int:  # type: ignore[name-defined]  # noqa: F821
        return 1

    function = Function(f)
    with pytest.raises(TypeError, match=r"f \(n: Unknown\)"):
        _ = function.item


def test_a_weakly_held_function_goes_with_its_scope() -> None:
    forgotten: list[Any] = []

    def make() -> Function:
        def local(n: int) -> int:
            return n

        function = Function(local)
        function.hold_weakly(lambda: forgotten.append(1))
        assert function.alive
        return function

    function = make()
    gc.collect()
    assert not function.alive and forgotten == [1]
    with pytest.raises(ReferenceError, match="no longer exists"):
        _ = function.callable


class Alien:
    """It cannot travel."""


def meet(alien: Alien) -> int:
    """Meet one."""
    return 1


def test_a_type_that_cannot_travel_is_announced_as_a_reason() -> None:
    info = Function(meet, timeout=3).announced()
    assert (info.name, info.doc, info.timeout, info.item) == ("meet", "Meet one.", 3, {})
    line = meet.__code__.co_firstlineno
    assert info.refusal.startswith(f"{__file__}:{line}: ")
    assert "meet (alien: " in info.refusal and "Alien cannot travel" in info.refusal
    assert Function(double).announced() == Function(double).info()
    assert Function(double).announced().refusal == ""
