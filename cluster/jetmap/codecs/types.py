"""Find out which library a type needs, through its generics, annotations and fields."""

from __future__ import annotations

import datetime as dt
import sys
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

# Whether a value may import its class's module, as in workers that trust their callers.
may_import_classes = False

# The scripts that this process has run as ``__mp_main__``, by path, and how it runs another one.
scripts: dict[str, types.ModuleType] = {}
run_script: Callable[[str], types.ModuleType] | None = None

SIMPLE = frozenset((bool, int, float, str, bytes, bytearray, type(None)))
_MARKS = ("__get_pydantic_core_schema__", "__pydantic_core_schema__", "__pydantic_validator__")
_CONSTRAINT_MODULES = frozenset(("pydantic", "pydantic_core", "annotated_types"))


def needs_pydantic(type: Any) -> bool:
    """Return whether a pydantic model, dataclass or constraint occurs anywhere in the type."""
    return any(map(_is_pydantic, _parts(type, set())))


def unknown_class(type: Any) -> Any:
    """Find a class in the type that msgspec cannot decode, or None."""
    if type is Any or type in SIMPLE:
        return None
    seen: set[int] = set()
    waiting: list[Any] = [msgspec.inspect.type_info(type)]
    while waiting:
        info = waiting.pop()
        if isinstance(info, (tuple, list)):
            waiting.extend(info)
        elif isinstance(info, msgspec.Struct) and id(info) not in seen:
            seen.add(id(info))
            if isinstance(info, msgspec.inspect.CustomType):
                if info.cls is object or is_numpy_scalar(info.cls):
                    continue
                return info.cls
            waiting.extend(getattr(info, field) for field in info.__struct_fields__)
    return None


def runs_code(type: Any) -> bool:
    """Return whether a class of users, which may have code of its own, occurs in the type."""
    return any(map(_is_users, _parts(type, set())))


def shares_bytes(type: Any) -> bool:
    """Return whether values of a type without code of users share the bytes that they came from."""
    return any(part is memoryview for part in _parts(type, set()))


def has_datetimes(type: Any) -> bool:
    """Return whether a datetime is annotated anywhere in the type."""
    return any(map(_is_datetime, _parts(type, set())))


def _is_datetime(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, dt.datetime)


def _is_users(part: Any) -> bool:
    if not isinstance(part, type):
        return False
    return part.__module__.partition(".")[0] not in sys.stdlib_module_names


def is_numpy_scalar(cls: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(cls, type) and issubclass(cls, numpy.generic)


def _is_pydantic(part: Any) -> bool:
    if any(hasattr(part, mark) for mark in _MARKS):
        return True
    cls = part if isinstance(part, type) else type(part)
    return any(base.__module__.partition(".")[0] in _CONSTRAINT_MODULES for base in cls.__mro__)


def _parts(tp: Any, seen: set[int]) -> Iterator[Any]:
    """Yield every class and every annotation's metadata in a type, itself included."""
    if tp is Any or id(tp) in seen or (isinstance(tp, type) and tp in SIMPLE):
        return
    seen.add(id(tp))
    origin = get_origin(tp)
    if origin is Annotated:
        yield from tp.__metadata__
        yield from _parts(tp.__origin__, seen)
    elif origin is not None:
        for part in (origin, *get_args(tp)):
            yield from _parts(part, seen)
    elif isinstance(tp, type) and not isinstance(tp, types.GenericAlias):
        yield tp
        for hint in _fields(tp):
            yield from _parts(hint, seen)
    elif isinstance(tp, (list, tuple)):
        for part in tp:
            yield from _parts(part, seen)
    else:
        yield from _parts_of_alias(tp, seen)


def _parts_of_alias(tp: Any, seen: set[int]) -> Iterator[Any]:
    if isinstance(tp, TypeVar):
        inner = [tp.__bound__, *tp.__constraints__]
    else:
        inner = [getattr(tp, "__supertype__", None), getattr(tp, "__value__", None)]
    for part in inner:
        if part is not None:
            yield from _parts(part, seen)


def _fields(cls: Any) -> list[Any]:
    """Return the types of a record class's fields; none for other classes."""
    if any(hasattr(cls, mark) for mark in _MARKS):
        return []
    records = ("__dataclass_fields__", "__struct_fields__", "__required_keys__", "__attrs_attrs__")
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    if not named_tuple and not any(hasattr(cls, mark) for mark in records):
        return []
    try:
        return list(get_type_hints(cls, include_extras=True).values())
    except Exception:  # An unresolvable name: the codec's own error says more.
        return []
