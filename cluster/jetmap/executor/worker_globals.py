"""The globals of the caller's ``__main__`` that an initializer has set in this worker.

Functions of ``__main__`` travel by value, and each pickle makes globals of its own, with the
caller's values. What an initializer has loaded into a global must be found there all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

_numbers = count(1)
_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
# Functions that came by value, for child processes that are forked later and have them, too.
by_name: WeakValueDictionary[str, Any] = WeakValueDictionary()
_initialized: dict[str, Any] = {}
# While an initializer is loaded and called: the globals of its functions, and a copy of each.
_scopes: dict[int, tuple[dict[str, Any], dict[str, Any]]] | None = None


def restored(function: FunctionType, state: tuple[Callable[..., object], Any]) -> None:
    """Give a function that was unpickled its state, and the globals of an earlier initializer."""
    restore, inner = state
    restore(function, inner)
    name_of(function)
    scope = function.__globals__
    scope.update(_initialized)
    if _scopes is not None:
        _scopes[id(scope)] = scope, dict(scope)


def name_of(obj: FunctionType | type) -> str:
    """Return the name under which this process, and its forked children, have an object."""
    if (name := _names.get(obj)) is None:
        name = _names[obj] = f"{os.getpid()}-{next(_numbers)}"
        by_name[name] = obj
    return name


@contextmanager
def initializing() -> Iterator[None]:
    """Keep what an initializer, loaded and called meanwhile, leaves in its globals.

    Those that it only names are kept too, as it may have changed them in place. Functions, classes
    and modules are not, unless it has replaced them: a notebook may define them again.
    """
    global _scopes
    _scopes = {}
    try:
        yield
        for scope, before in _scopes.values():
            for name, value in scope.items():
                is_code = isinstance(value, (FunctionType, type, ModuleType))
                if name != "__builtins__" and not (is_code and before.get(name) is value):
                    _initialized[name] = value
    finally:
        _scopes = None
