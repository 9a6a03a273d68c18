"""Classes and functions of scripts keep their identity there and back."""

from __future__ import annotations

import copy
import sys
import types
from typing import Any

import pytest

from jetmap.functions.pickled import PickledCodec
from jetmap.functions.picklers import Home

SCRIPT = """
class Point:
    def __init__(self, x):
        self.x = x
def helper(n):
    return n + 1
def same(x):
    return x
"""


def script(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(SCRIPT, module.__dict__)
    return module


def crossed(value: Any, there: Home, here: Home) -> Any:
    return PickledCodec(here).decode(PickledCodec(there).encode(value, "pickle"), "pickle")


def test_names_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caller and worker have their own copies; and another script with the same names ran since."""
    main, theirs, other = script("__main__"), script("__mp_main__"), script("__mp_main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setitem(sys.modules, "__mp_main__", other)
    caller, worker = Home(vars(main), vars(main)), Home(vars(theirs), vars(theirs))
    value = [main.Point(1), main.Point, main.helper, {main.Point: (main.helper,)}]
    arrived = crossed(value, caller, worker)
    assert type(arrived[0]) is theirs.Point and arrived[1:3] == [theirs.Point, theirs.helper]
    back = crossed(arrived, worker, caller)
    assert type(back[0]) is main.Point and back[1:] == value[1:]
    with pytest.raises(AttributeError, match="has no Point"):
        del theirs.Point
        crossed(value[1], caller, worker)


def test_names_of_a_program_in_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of ``python -m`` is in ``__main__`` here, and in its module there."""
    main = script("__main__")
    main.__spec__ = types.SimpleNamespace(name="program")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert crossed([main.Point, main.helper], Home(), Home()) == [main.Point, main.helper]


def test_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    main = script("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    caller = Home(None, vars(main))
    assert crossed(main.Point, caller, caller) is main.Point
    assert crossed(main.helper, caller, caller) is main.helper
    # The function that came by value, with the globals that it uses.
    theirs = dict(vars(main))
    theirs["helper"] = types.FunctionType(main.helper.__code__, theirs, "helper")
    worker = Home(None, theirs)
    arrived = crossed(main.helper, caller, worker)
    assert arrived is theirs["helper"]
    assert crossed(arrived, worker, caller) is main.helper
    changed = copy.copy(main.helper)
    changed.__code__ = main.same.__code__
    assert crossed(main.same, caller, Home(None, {"same": changed}))(5) == 5
