"""The globals that an initializer leaves in a worker, for functions that come later."""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import pytest

from jetmap.executor import worker_globals
from jetmap.executor.worker_globals import initializing, restored


@pytest.fixture(autouse=True)
def _new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_globals, "_initialized", {})


def helper() -> None: ...


def function(**scope: Any) -> FunctionType:
    """Unpickle a function with these globals."""
    made = FunctionType(helper.__code__, {"__name__": "__main__"})
    restored(made, (lambda made, state: made.__globals__.update(state), scope))
    return made


def seen(**scope: Any) -> dict[str, Any]:
    found = function(**scope).__globals__
    return {name: value for name, value in found.items() if not name.startswith("__")}


def test_globals_that_it_sets_or_may_have_changed_in_place_are_kept() -> None:
    table: dict[str, int] = {}
    with initializing():
        load = function(model=None, table=table, seconds=3)
        load.__globals__.update(model=5, late=6)
        table["n"] = 7
    assert seen(model=None, table={}, other=1) == {
        "model": 5, "late": 6, "table": {"n": 7}, "seconds": 3, "other": 1
    }  # fmt: skip


def test_functions_classes_and_modules_come_with_each_function_unless_replaced() -> None:
    with initializing():
        load = function(helper=helper, Thing=int, math=math, log=helper)
        load.__globals__["log"] = print
    assert seen(helper=len, log=helper) == {"helper": len, "log": print}


def test_what_a_failing_initializer_leaves_is_not_kept() -> None:
    with pytest.raises(LookupError), initializing():
        function(model=None).__globals__["model"] = 5
        raise LookupError
    assert seen(model=None) == {"model": None}
    assert worker_globals._scopes is None
