"""Compare a value with what arrived, types included."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict, deque
from functools import cached_property
from typing import Any, NamedTuple


class Change(NamedTuple):
    """The first difference between a value and what arrived.

    Attributes:
        path: Where it is.
        value: The part of the value that was sent.
        is_other_type: Whether that part arrives as another type; otherwise its content changes.
    """

    path: str
    value: Any
    is_other_type: bool


def refuse_changes(sent: Any, arrived: Any) -> None:
    """Raise TypeError, with the path, if a value would arrive changed.

    This is for types that pydantic does not write completely, and for models with parts without an
    annotation, which travel as JSON.
    """
    found = change(sent, arrived)
    if found is None:
        return
    name = type(found.value).__qualname__
    if found.is_other_type:
        raise TypeError(
            f"a value of type {name} cannot travel in a field that is annotated Any (or not at "
            f"all) - at `${found.path}`; annotate the field with {name}, or send JSON types"
        )
    raise TypeError(
        f"a value of type {name} would arrive changed - at `${found.path}`: {_why(found.value)}; "
        "leave out the function's annotation"
    )


def change(sent: Any, arrived: Any) -> Change | None:
    """Find the first difference, or None."""
    if type(sent) is not type(arrived):
        return Change("", sent, True)
    if _setting(sent) != _setting(arrived):
        return Change("", sent, False)
    for path, part, other in _parts(sent, arrived):
        if part is _ABSENT and other is _ABSENT:
            return Change(path, sent, True)
        if part is _ABSENT or other is _ABSENT:
            return Change(path, other if part is _ABSENT else part, False)
        found = change(part, other)
        if found is not None:
            return found._replace(path=path + found.path)
    if _has_parts(sent) or sent == arrived or (sent != sent and arrived != arrived):
        return None
    return Change("", sent, False)


class _Absent:
    pass


_ABSENT = _Absent()


def _why(value: Any) -> str:
    if isinstance(value, re.Pattern):
        return "an annotated pattern has no flags (write them into it, as in `(?i)`)"
    if isinstance(value, deque):
        return "an annotated deque has no maxlen"
    if isinstance(value, defaultdict):
        return "an annotated defaultdict has the default_factory that its annotation names"
    return "its model leaves it out (exclude=True), or changes it (a validator or serializer)"


def _setting(value: Any) -> Any:
    """Return what belongs to a value but takes no part in its equality."""
    if isinstance(value, deque):
        return value.maxlen
    return value.default_factory if isinstance(value, defaultdict) else None


def _has_parts(value: Any) -> bool:
    return isinstance(value, (list, tuple, deque, dict)) or _members(value) is not None


def _members(value: Any) -> dict[str, Any] | None:
    """Return the fields of a model or a dataclass; None for other values."""
    cls = type(value)
    is_dataclass = dataclasses.is_dataclass(cls)
    if not is_dataclass and not hasattr(cls, "__pydantic_validator__"):
        return None
    names = [field.name for field in dataclasses.fields(value)] if is_dataclass else []
    members = {name: getattr(value, name, _ABSENT) for name in names}  # They may be in slots.
    for name, member in getattr(value, "__dict__", {}).items():
        if not isinstance(getattr(cls, name, None), cached_property):  # Computed anew if needed.
            members[name] = member
    return members | (getattr(value, "__pydantic_extra__", None) or {})


def _parts(sent: Any, arrived: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(sent, (list, tuple, deque)):
        if len(sent) != len(arrived):
            return [("", _ABSENT, _ABSENT)]
        pairs = enumerate(zip(sent, arrived, strict=True))
        return [(f"[{index}]", part, other) for index, (part, other) in pairs]
    if isinstance(sent, dict):
        if list(map(_key, sent)) != list(map(_key, arrived)):
            return [("", _ABSENT, _ABSENT)]
        return [(f"[{key!r}]", part, arrived[key]) for key, part in sent.items()]
    members = _members(sent)
    if members is None:
        return []
    others = _members(arrived) or {}
    return [(f".{name}", part, others.get(name, _ABSENT)) for name, part in members.items()]


def _key(key: Any) -> tuple[type, Any]:
    return type(key), key
