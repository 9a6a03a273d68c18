"""Let ``multiprocessing``, used inside a call, run functions of the caller's ``__main__``.

Such functions came by value; the worker's own ``__main__`` has none of them to be found by name.
"""

from __future__ import annotations

import pickle
import sys
from types import FunctionType
from typing import Any

from jetmap.machine import MAIN

from .packing import packed_whole
from .worker_globals import by_name, name_of


def prepare() -> None:
    """Have ``multiprocessing`` pickle what has no name here; child processes do the same."""
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.reducer_override = _reduce  # type: ignore[method-assign]


def _reduce(pickler: pickle.Pickler, obj: Any) -> Any:
    if not isinstance(obj, (FunctionType, type)) or obj.__module__ not in MAIN:
        return NotImplemented
    if _has_name(obj):
        return NotImplemented
    return _found, (name_of(obj), packed_whole(obj))


def _found(name: str, packed: bytes) -> Any:
    """Return this process's own object, as a forked child has it, else the one that came."""
    prepare()
    found = by_name.get(name)
    return pickle.loads(packed) if found is None else found


def _has_name(obj: Any) -> bool:
    found: Any = sys.modules.get(obj.__module__)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj
