"""Compare values as a Python program would tell them apart: types, order and NaN included."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pydantic


def alike(a: Any, b: Any) -> bool:
    return describe(a) == describe(b)


def describe(value: Any) -> str:
    """A text that two values share only if they are the same in everything."""
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}({_content(value)})"


def _content(value: Any) -> str:
    if isinstance(value, np.ndarray):
        order = "F" if value.ndim > 1 and value.flags.fnc else "C"
        return f"{value.dtype!r}, {value.shape}, {order}, {value.tobytes()!r}"
    if isinstance(value, dict):
        members = [f"{describe(k)}: {describe(v)}" for k, v in value.items()]
        own = getattr(value, "default_factory", None)
        return f"{members}, {own}, {getattr(value, '__dict__', {})}"
    if isinstance(value, (list, tuple)):
        return f"{[describe(part) for part in value]}, {getattr(value, '__dict__', {})}"
    if isinstance(value, (set, frozenset)):
        return str(sorted(describe(part) for part in value))
    if dataclasses.is_dataclass(value):
        return str([describe(getattr(value, f.name)) for f in dataclasses.fields(value)])
    if isinstance(value, msgspec.Struct):
        return str([describe(getattr(value, name)) for name in value.__struct_fields__])
    if isinstance(value, pydantic.BaseModel):
        return describe(value.__dict__)
    if isinstance(value, memoryview):
        return repr(bytes(value))
    return f"{value!r}, {getattr(value, 'fold', 0)}"
