"""Kinds for instances of users' classes: enums, records, and subclasses of builtins.

They travel with the name of their class, which both sides must have imported: nothing is imported
for a value unless a worker trusts its callers. Constructors of records are not called.

The module of a script's class is ``__main__:`` and the path of the script, because one process may
meet the classes of several scripts.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import os
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

import msgspec

from jetmap.machine import MAIN

from . import types
from .walk import Kind, cannot_travel, items_of, register, tag

_SCRIPT = "__main__:"
# The bit in a class's __flags__ of those defined in Python.
_HEAP = 1 << 9
_OWN_STATE = (
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__",
    "__getnewargs_ex__",
)  # fmt: skip


def class_kind(value: Any) -> Kind | None:
    """Find the kind of an instance of a user's class, or None if it cannot travel."""
    cls = type(value)
    kind = _kind_of_class(cls)
    if kind is None:
        return None
    if _find(cls.__qualname__, _module_of(cls)) is not cls or _in_session(cls):
        raise TypeError(
            cannot_travel(
                value,
                "its class can only be found by name at module level, in a file: move it there, "
                "or annotate the function with it",
            )
        )
    return kind


def _kind_of_class(cls: type) -> Kind | None:
    if issubclass(cls, enum.Enum):
        return _ENUM
    if _base_of(cls) is not None:
        return _SUBCLASS
    if issubclass(cls, msgspec.Struct):
        return _STRUCT
    if _is_model(cls):
        return _MODEL
    return _RECORD if _fields(cls) is not None and _is_simple(cls, object) else None


def _home(cls: type[Any]) -> tuple[str, str]:
    """Return the module and name by which the other side finds a class."""
    return _cached_home(cls)  # type: ignore[arg-type]  # Classes can be hashed.


@lru_cache(maxsize=256)
def _cached_home(cls: Any) -> tuple[str, str]:
    name = cls.__module__
    if name in MAIN:
        module = _module_of(cls)
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name not in MAIN:
            name = spec.name
        else:
            name = _SCRIPT + os.path.realpath(getattr(module, "__file__", None) or "")
    return name, cls.__qualname__


def _module_of(cls: type) -> ModuleType | None:
    """Return the module where a class should be; for a script's class, that of the script."""
    module = sys.modules.get(cls.__module__)
    if cls.__module__ in MAIN and _find(cls.__qualname__, module) is not cls:
        for script in types.scripts.values():
            if _find(cls.__qualname__, script) is cls:
                return script
    return module


def _in_session(cls: type) -> bool:
    return cls.__module__ in MAIN and getattr(_module_of(cls), "__file__", None) is None


def _script(path: str) -> ModuleType | None:
    """Return the module of a script that runs or was run here; run it if that is allowed."""
    main = sys.modules.get("__main__")
    if os.path.realpath(getattr(main, "__file__", None) or "") == path:
        return main
    if types.may_import_classes and types.run_script is not None:
        return types.run_script(path)
    return types.scripts.get(path)


def _find(qualname: str, module: Any) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _class(kind: Kind, module: str, qualname: str) -> Any:
    """Find the class of a value that arrived.

    Raises ValueError if it is not imported here, or has another kind.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    home = main if spec is not None and spec.name == module else sys.modules.get(module)
    if module.startswith(_SCRIPT):
        home = _script(module.removeprefix(_SCRIPT))
        module = "__main__"
    elif home is None and types.may_import_classes:
        home = importlib.import_module(module)
    cls = _find(qualname, home)
    if not isinstance(cls, type) or _kind_of_class(cls) is not kind:
        what = "does not have" if home is not None else "has not imported"
        raise ValueError(
            f"this process {what} the class {module}.{qualname} of a value: import its module "
            "beside the function, or annotate the function with it"
        )
    return cls


# Enums


def _take_enum(value: enum.Enum) -> list[Any]:
    cls = type(value)
    name = value._name_ if value._name_ in cls.__members__ else None
    return [*_home(cls), name, tag(value._value_)]


def _make_enum(module: str, qualname: str, name: str | None, value: Any) -> Any:
    cls = _class(_ENUM, module, qualname)
    return cls(value) if name is None else cls.__members__[name]


# Subclasses of builtins, named tuples among them


def _exactly(base: type, value: Any) -> Any:
    """Convert a value to its builtin base, whatever the subclass overrides."""
    if base in (str, bytes, tuple, list):
        return base.__getitem__(value, slice(None))
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value))  # type: ignore[attr-defined]


_BASES = (str, int, float, bytes, tuple, list, dict, set, frozenset)
_IMMUTABLE = (str, int, float, bytes, tuple, frozenset)


def _base_of(cls: type) -> type | None:
    base = next((base for base in _BASES if issubclass(cls, base)), None)
    return base if base is not None and cls is not base and _is_simple(cls, base) else None


def _is_simple(cls: type, base: type) -> bool:
    """Return whether an instance is its base's value and its own attributes, and nothing else."""
    fields = set(_fields(cls) or ())
    for each in cls.__mro__:
        if each in (base, object):
            continue
        slots = each.__dict__.get("__slots__") or ()
        own = {slots} if isinstance(slots, str) else set(slots)
        if not each.__flags__ & _HEAP or own - fields - {"__weakref__", "__dict__"}:
            return False
        # Methods that dataclass, attrs and NamedTuple define do not count.
        made = fields or (base is tuple and hasattr(each, "_fields"))
        states = ("__reduce__", "__reduce_ex__") if made else _OWN_STATE
        if any(name in each.__dict__ for name in states):
            return False
    return True


def _take_subclass(value: Any) -> list[Any]:
    cls = type(value)
    base = _base_of(cls)
    assert base is not None
    state = getattr(value, "__dict__", None)
    return [*_home(cls), tag(_exactly(base, value)), items_of(state.items()) if state else []]


def _make_subclass(module: str, qualname: str, content: Any, state: list[Any]) -> Any:
    cls = _class(_SUBCLASS, module, qualname)
    base: Any = _base_of(cls)
    if base in _IMMUTABLE:
        made = base.__new__(cls, content)
    else:
        made = base.__new__(cls)
        base.__init__(made, content)
    if state:
        made.__dict__.update(state)
    return made


# Records


def _fields(cls: type) -> list[str] | None:
    """Return the field names of a dataclass or an attrs class; None for other classes."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    found = getattr(cls, "__attrs_attrs__", None)
    return None if found is None else [field.name for field in found]


def _take_record(value: Any) -> list[Any]:
    names = dict.fromkeys([*(_fields(type(value)) or ()), *getattr(value, "__dict__", ())])
    present = [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return [*_home(type(value)), items_of(present)]


def _make_record(module: str, qualname: str, members: list[Any]) -> Any:
    cls = _class(_RECORD, module, qualname)
    made = object.__new__(cls)
    for name, member in members:
        object.__setattr__(made, name, member)
    return made


def _take_struct(value: msgspec.Struct) -> list[Any]:
    present = [(name, getattr(value, name)) for name in value.__struct_fields__]
    return [*_home(type(value)), items_of(present)]


def _make_struct(module: str, qualname: str, members: list[Any]) -> Any:
    return _class(_STRUCT, module, qualname)(**dict(members))


def _is_model(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def _take_model(value: Any) -> list[Any]:
    return [*_home(type(value)), items_of(value.__getstate__().items())]


def _make_model(module: str, qualname: str, state: list[Any]) -> Any:
    cls = _class(_MODEL, module, qualname)
    made = cls.__new__(cls)
    made.__setstate__(dict(state))
    return made


def _plain_record(module: str, qualname: str, members: list[Any]) -> dict[str, Any]:
    return dict(members)


def _plain_model(module: str, qualname: str, state: list[Any]) -> Any:
    found = dict(state)
    return {**found["__dict__"], **(found.get("__pydantic_extra__") or {})}


_ENUM = Kind("enum", _take_enum, _make_enum, lambda module, qualname, name, value: value)
_SUBCLASS = Kind(
    "subclass", _take_subclass, _make_subclass, lambda module, qualname, content, state: content
)
_RECORD = Kind("record", _take_record, _make_record, _plain_record)
_STRUCT = Kind("struct", _take_struct, _make_struct, _plain_record)
_MODEL = Kind("model", _take_model, _make_model, _plain_model)
for _kind in (_ENUM, _SUBCLASS, _RECORD, _STRUCT, _MODEL):
    register(_kind)
