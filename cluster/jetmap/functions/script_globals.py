"""Notice globals of a script that change between two maps, which its workers do not see.

Workers import the script from its file, as `multiprocessing` does, and keep their own globals. (A
notebook's function is sent with its globals at each map, so this does not concern it.)
"""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

from .function import Function
from .signatures import innermost

_COMPARED = (type(None), bool, int, float, complex, str, bytes)


class ScriptGlobals:
    """Remember the plain globals that each function used at its latest map."""

    def __init__(self) -> None:
        self._seen: dict[Function, dict[str, Any]] = {}

    def changed(self, function: Function) -> str | None:
        """Return a warning that names the globals changed since the function's latest map."""
        now = _plain_globals(innermost(function.callable), set())
        before, self._seen[function] = self._seen.get(function, now), now
        names = sorted(
            name
            for name in now.keys() & before.keys()
            if (type(now[name]), now[name]) != (type(before[name]), before[name])
        )
        if not names:
            return None
        changes = ", ".join(
            f"{name} from {before[name]!r:.40} to {now[name]!r:.40}" for name in names
        )
        return (
            f"the script changed {changes} between two maps of {function.qualname}, but workers "
            "import the script themselves and keep their own; pass it as a keyword-only "
            f"parameter: kwargs={{{names[0]!r}: …}}"
        )


def _plain_globals(f: Any, seen: set[int]) -> dict[str, Any]:
    """Return the plain globals of a function, and of the script's functions that it calls."""
    if not isinstance(f, FunctionType) or id(f) in seen:
        return {}
    seen.add(id(f))
    found: dict[str, Any] = {}
    for name in _names(f.__code__):
        value = f.__globals__.get(name)
        if name in f.__globals__ and type(value) in _COMPARED and value == value:
            found[name] = value
        elif isinstance(value, FunctionType) and value.__globals__ is f.__globals__:
            found |= _plain_globals(value, seen)
    return found


def _names(code: CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_names, inner))
