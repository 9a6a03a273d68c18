"""Functions and classes of a caller's ``__main__`` in the pickles of ``multiprocessing``."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

import pytest

from jetmap.executor import nested_pools, worker_globals


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare this process, and undo it afterwards."""
    monkeypatch.setattr(ForkingPickler, "reducer_override", None, raising=False)
    nested_pools.prepare()


def mains(value: int) -> FunctionType:
    """Make a function that another program's ``__main__`` has defined."""
    scope: dict[str, Any] = {"__name__": "__main__", "value": value}
    exec("def f():\n    return value", scope)
    f = scope["f"]
    assert isinstance(f, FunctionType)
    return f


def test_a_function_of_another_main_is_found_by_name_where_it_is_known() -> None:
    f = mains(5)
    assert pickle.loads(ForkingPickler.dumps(f)) is f


def test_it_travels_by_value_where_it_is_not() -> None:
    f = mains(5)
    data = ForkingPickler.dumps(f)
    del worker_globals.by_name[worker_globals.name_of(f)]
    found = pickle.loads(data)
    assert found is not f and found() == 5


def test_what_can_be_imported_travels_by_name() -> None:
    data = bytes(ForkingPickler.dumps((pickle.loads, int, {"a": [1]})))
    assert b"nested_pools" not in data
    assert pickle.loads(data) == (pickle.loads, int, {"a": [1]})
