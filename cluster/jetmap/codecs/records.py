"""Refuse records of a subclass, whose own fields would not arrive.

Only values themselves are looked at, not what they hold: that costs a look at their types.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable
from typing import Annotated, Any, NewType, Union, get_args, get_origin

import msgspec

from .untyped import is_untyped

_UNIONS = (Union, types.UnionType)


def record_classes(hint: Any) -> frozenset[type]:
    """Return the classes of records that values of a type have, and that of None.

    These are dataclasses, attrs classes, named tuples, msgspec structs and pydantic models. Empty
    if values of the type are not records, or may be anything.
    """
    found = _classes(hint)
    if not found or any(map(is_untyped, found)):
        return frozenset()
    records = [each for each in found if isinstance(each, type) and _fields(each) is not None]
    return frozenset((*records, type(None))) if records else frozenset()


def refuse_subclasses(values: Iterable[Any], classes: frozenset[type]) -> None:
    """Raise TypeError for a record of a subclass that has more than the annotated class.

    Args:
        classes: As ``record_classes`` returns them; not empty.
    """
    if classes.issuperset(map(type, values)):
        return
    for cls in set(map(type, values)) - classes:
        for base in classes.intersection(cls.__mro__):
            more = (_fields(cls) or frozenset()) - (_fields(base) or frozenset())
            if more or issubclass(cls, tuple):
                fields = f" and lose {', '.join(sorted(more))}" if more else ""
                raise TypeError(
                    f"a value of the class {cls.__qualname__} would arrive as the annotated class "
                    f"{base.__qualname__}{fields}; annotate the function with {cls.__qualname__}, "
                    "or leave out the annotation"
                )


def _classes(hint: Any) -> list[Any]:
    """Return the branches of a type, without what they are annotated or parametrized with."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _classes(get_args(hint)[0])
    if origin in _UNIONS:
        return [each for branch in get_args(hint) for each in _classes(branch)]
    if isinstance(hint, NewType):
        return _classes(hint.__supertype__)
    alias = hint if origin is None else origin
    if not isinstance(alias, type) and hasattr(alias, "__value__"):  # type X = …
        return _classes(alias.__value__)
    return [alias]


def _fields(cls: Any) -> frozenset[str] | None:
    """Return the names of a record class's fields; None for other classes."""
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return frozenset(cls._fields)
    if issubclass(cls, msgspec.Struct):
        return frozenset(cls.__struct_fields__)
    if hasattr(cls, "__pydantic_fields__"):
        return frozenset(cls.__pydantic_fields__)
    if dataclasses.is_dataclass(cls):
        return frozenset(field.name for field in dataclasses.fields(cls))
    found = getattr(cls, "__attrs_attrs__", None)
    return None if found is None else frozenset(field.name for field in found)
