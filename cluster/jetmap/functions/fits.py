"""Compare what a loader returns with the parameter that it is for, by their annotations.

Only what is certainly wrong is refused: a type that is unknown here may be right.
"""

from __future__ import annotations

import collections.abc
import typing
from types import NoneType, UnionType
from typing import Annotated, Any, Union

from .per_worker import PerWorker, Unknown, evaluated, function_of
from .signatures import annotations_of, described, innermost, scope_of

_GENERATOR = 0x20
_YIELDING = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)
_NUMBERS = {(int, float), (int, complex), (float, complex)}


def check_loader(mark: PerWorker, wanted: Any, place: str) -> None:
    """Raise TypeError if the loader certainly makes something other than ``wanted``."""
    made = _made(mark.load)
    if not fits(made, wanted):
        raise TypeError(
            f"{place}: its loader {mark.name} returns {_shown(made)}, and the parameter is "
            f"{_shown(wanted)}: name another loader, or correct one of the annotations"
        )


def fits(made: Any, wanted: Any) -> bool:
    """Return whether a value of the type ``made`` may be one of the type ``wanted``."""
    made, wanted = _bare(made), _bare(wanted)
    if made is None or wanted is None or wanted is object:
        return True
    if (options := _options(made)) is not None:
        return all(fits(each, wanted) for each in options)
    if (options := _options(wanted)) is not None:
        return any(fits(made, each) for each in options)
    if (made, wanted) in _NUMBERS:
        return True
    origin, other = typing.get_origin(made) or made, typing.get_origin(wanted) or wanted
    if not isinstance(origin, type) or not isinstance(other, type):
        return True
    try:
        if not issubclass(origin, other):
            return False
    except TypeError:  # A Protocol that cannot be asked.
        return True
    inner, outer = typing.get_args(made), typing.get_args(wanted)
    if origin is not other or len(inner) != len(outer):
        return True
    return all(fits(a, b) or fits(b, a) for a, b in zip(inner, outer, strict=True))


def _made(load: Any) -> Any:
    """Return the type that a loader makes; None if it does not say."""
    load = function_of(load)
    if isinstance(load, type):
        return load
    inner = innermost(load)
    try:
        annotations = annotations_of(load)
    except Exception:
        return None
    made = annotations.get("return")
    if made == "None" or ("return" in annotations and made is None):
        return NoneType
    made = evaluated(made, scope_of(inner), {}) if made is not None else None
    code = getattr(inner, "__code__", None)
    if code is None or not code.co_flags & _GENERATOR:
        return made
    yielded = typing.get_args(made)
    return yielded[0] if typing.get_origin(made) in _YIELDING and yielded else None


def _bare(hint: Any) -> Any:
    """Return a type without its annotation; None if it is not known or says nothing."""
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return None if hint is Any or isinstance(hint, (Unknown, str, typing.ForwardRef)) else hint


def _options(hint: Any) -> tuple[Any, ...] | None:
    """Return the members of a union, or None."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else None


def _shown(hint: Any) -> str:
    if hint is NoneType:
        return "None"
    if not isinstance(hint, type) or typing.get_args(hint):
        return str(hint)
    return hint.__qualname__ if hint.__module__ == "builtins" else described(hint)
