"""Globals of a script that change between two maps."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from jetmap.functions.function import Function
from jetmap.functions.script_globals import ScriptGlobals

SOURCE = """
K, NAN, ITEMS = 3, float("nan"), [1]
def helper(n): return n * FACTOR
FACTOR = 2
def f(n): return helper(n) + K + NAN + len(ITEMS)
"""


def script() -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "script_with_globals"}
    exec(SOURCE, scope)
    return scope


def test_a_changed_global_is_named_once() -> None:
    scope, seen = script(), ScriptGlobals()
    f = scope["f"]
    assert isinstance(f, FunctionType)
    function = Function(f)
    assert seen.changed(function) is None
    scope["K"] = 4
    warning = seen.changed(function)
    assert warning is not None
    assert "changed K from 3 to 4" in warning and "kwargs={'K': …}" in warning
    assert seen.changed(function) is None


def test_globals_of_helpers_count_and_containers_do_not() -> None:
    scope, seen = script(), ScriptGlobals()
    function = Function(scope["f"])
    seen.changed(function)
    scope["ITEMS"].append(2)
    assert seen.changed(function) is None
    scope["FACTOR"] = 2.0
    assert "FACTOR from 2 to 2.0" in str(seen.changed(function))
