"""Compare a value with what arrived, types included."""

from __future__ import annotations

import dataclasses
from typing import Any


def refuse_changes(sent: Any, arrived: Any) -> None:
    """Raise TypeError, with the path, if a value would arrive changed.

    This is for models with parts without an annotation, which travel as JSON.
    """
    place = change(sent, arrived)
    if place is not None:
        path, value = place
        name = type(value).__qualname__
        raise TypeError(
            f"a value of type {name} cannot travel in a field that is annotated Any (or not at "
            f"all) - at `${path}`; annotate the field with {name}, or send JSON types"
        )


def change(sent: Any, arrived: Any) -> tuple[str, Any] | None:
    """Find the first difference; return its path and value, or None."""
    if type(sent) is not type(arrived):
        return "", sent
    for path, part, other in _parts(sent, arrived):
        if part is _ABSENT or other is _ABSENT:
            return path, sent
        found = change(part, other)
        if found is not None:
            return path + found[0], found[1]
    if _has_parts(sent) or sent == arrived or (sent != sent and arrived != arrived):
        return None
    return "", sent


class _Absent:
    pass


_ABSENT = _Absent()


def _has_parts(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict)) or _members(value) is not None


def _members(value: Any) -> dict[str, Any] | None:
    """Return the fields of a model or a dataclass; None for other values."""
    if hasattr(type(value), "__pydantic_validator__") or dataclasses.is_dataclass(value):
        extra = getattr(value, "__pydantic_extra__", None)
        return {**getattr(value, "__dict__", {}), **(extra or {})}
    return None


def _parts(sent: Any, arrived: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(sent, (list, tuple)):
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
