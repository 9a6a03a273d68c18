"""Pickle values between processes that trust each other, so that classes keep their identity.

A script's classes are in ``__main__`` for its caller and in ``__mp_main__`` for its workers, and
those of ``python -m`` are in a named module for the latter. Classes of a notebook travel by value;
cloudpickle remembers at both ends which ones they are.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from jetmap.machine import MAIN

Reducer = Callable[[Any], Any]
Globals = dict[str, Any]


class _ThreadGlobals(threading.local):
    """The globals of each thread's ``loading``: the script's, and the called function's."""

    found: tuple[Globals | None, Globals | None] = None, None


_names = _ThreadGlobals()


class TooLong(Exception):  # noqa: N818
    """A pickle has more bytes than it may."""


class _Capped(io.BytesIO):
    """Take at most ``most`` bytes, so that nobody pickles a gigabyte for nothing."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > self._most:
            raise TooLong
        return super().write(data)


def dumps(value: Any, reduce: Reducer, most: int) -> bytes:
    """Pickle a value, with its classes by name where they have one that others know.

    Args:
        reduce: As ``reducer_override`` of a pickler.
        most: Bytes of the pickle, at most.

    Raises TooLong, and whatever the value's parts raise.
    """
    try:
        return _dump(pickle.Pickler, value, reduce, most)
    except TooLong:
        raise
    except Exception:
        from .by_value import Pickler  # It imports cloudpickle, which few need.

        return _dump(Pickler, value, reduce, most)


def loads(data: bytes | memoryview, buffers: Iterable[Any] = ()) -> Any:
    """Load a pickle, which runs any code that its sender chose. Raises whatever that raises.

    Args:
        buffers: Those that the pickle leaves out.
    """
    return _Unpickler(io.BytesIO(data), buffers=buffers).load()


def refuse_connection(obj: object) -> None:
    """Raise TypeError for a connection of ``multiprocessing``.

    Its pickle would be the number of a file, which is another file in the other process.
    """
    if type(obj).__module__ == "multiprocessing.connection":
        raise TypeError(
            f"cannot pickle {type(obj).__name__!r} object, one end of a connection of this "
            "process; send what it receives"
        )


class loading:  # noqa: N801 - Used as a function; a generator would take three times as long.
    """Find the names of a script in these globals while pickles are loaded.

    Args:
        scope: The script's; None: those of this process's ``__main__``.
        called: Those of the function that is called.
    """

    __slots__ = ("_before", "_names")

    def __init__(self, scope: Globals | None, called: Globals | None = None) -> None:
        self._names = scope, called

    def __enter__(self) -> None:
        self._before = _names.found
        _names.found = self._names

    def __exit__(self, *exc_info: object) -> None:
        _names.found = self._before


def called_globals() -> dict[str, Any]:
    """Return the globals of the function whose items are loaded."""
    return _names.found[1] or {}


def named(qualname: str) -> Any:
    """Find a class or function of the script. Raises AttributeError if there is none.

    Two scripts may run in one worker, so it is not always that of ``__main__``.
    """
    scope = _names.found[0]
    if scope is None:
        scope = vars(sys.modules["__main__"])
    first, *rest = qualname.split(".")
    found = scope.get(first)
    for part in rest:
        found = getattr(found, part, None)
    if found is None:
        raise AttributeError(f"the script {scope.get('__file__', '')} has no {qualname}")
    return found


def find_class(module: str, qualname: str) -> Any:
    """Find a class or function by the name that it has in its sender's process.

    Raises ImportError or AttributeError if there is none.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if module in MAIN or (spec is not None and spec.name == module):
        found = _attribute(main, qualname)
        if found is not None:
            return found
    __import__(module)
    found = _attribute(sys.modules[module], qualname)
    if found is None:
        raise AttributeError(f"{module} has no {qualname}")
    return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return find_class(module, name)


def _attribute(found: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _dump(base: Any, value: Any, reduce: Reducer, most: int) -> bytes:
    class Reducing(base):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            reduced = reduce(obj)
            if reduced is NotImplemented and base is not pickle.Pickler:
                return super().reducer_override(obj)
            return reduced

    file = _Capped(most)
    Reducing(file, 5).dump(value)
    return file.getvalue()
