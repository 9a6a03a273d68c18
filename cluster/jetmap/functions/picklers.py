"""Pickle values for a process that trusts this one; what a script defines goes by name."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import pickle
import sys
import uuid
from types import FunctionType
from typing import Any

import msgspec

from jetmap.machine import MAIN
from jetmap.wire import runs

from .function import Function
from .pickles import called_globals, find_class, named, refuse_connection

PROTOCOL = 5
_BUFFER_BYTES = 4 << 10  # Bytes of a buffer that stays out of its pickle, at least.
# Types whose pickles can be loaded wherever they can be made.
_SAFE = frozenset(
    (
        complex, decimal.Decimal, dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone, range,
        slice, uuid.UUID,
    )
)  # fmt: skip


class Home:
    """A script whose classes and functions travel by name, because both sides have run it.

    Args:
        scope: The script's globals; None: all of ``__main__`` travels by value.
        globals: Those of the function that is called.
    """

    def __init__(
        self, scope: dict[str, Any] | None = None, globals: dict[str, Any] | None = None
    ) -> None:
        self.scope = scope
        self.globals = globals

    @classmethod
    def of(cls, function: Function, *, far: bool = False) -> Home:
        """Find the script of a function.

        Args:
            far: Whether the workers are on other hosts, without the script.
        """
        scope = function.scope
        is_workers = scope.get("__name__") == "__mp_main__"
        has_run = function.module == "__main__" and not function.by_value and not far
        is_ours = scope is _main() and has_run
        return cls(scope if is_workers or is_ours else None, scope)

    def name_of(self, obj: Any) -> Any:
        """Return how to find a class or function of a script again; None: only by value."""
        if self.scope is not None and _member(self.scope, obj.__qualname__) is obj:
            return named, (obj.__qualname__,)
        # A program run by ``python -m`` can be imported under its own name.
        spec = _main().get("__spec__")
        module = spec.name if spec is not None else "__main__"
        if module not in MAIN and _member(_main(), obj.__qualname__) is obj:
            return find_class, (module, obj.__qualname__)
        return None


class ApartError(Exception):
    """An item holds more than builtins, so it travels alone."""


class _ByValueError(Exception):
    """A class or function of a script must travel by value."""


class BuiltinsPickler(pickle.Pickler):
    """Pickle builtins only: everything but builtin containers and scalars comes here."""

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        if cls in _SAFE or (cls is type and obj in _SAFE):
            return NotImplemented
        raise ApartError


class _ByName(pickle.Pickler):
    """Pickle as ever, but classes and functions of the script by the script's name."""

    home: Home

    def reducer_override(self, obj: Any) -> Any:
        if (isinstance(obj, type) or type(obj) is FunctionType) and obj.__module__ in MAIN:
            found = self.home.name_of(obj)
            if found is None:
                raise _ByValueError
            return found
        if type(obj) is memoryview:
            return reduced_memory(obj)
        refuse_connection(obj)
        return NotImplemented


def _by_value() -> Any:
    """Return a pickler for what has no name that the other side knows."""
    from .by_value import Pickler  # It imports cloudpickle, which few need.

    class ByValue(Pickler):
        home: Home

        def reducer_override(self, obj: Any) -> Any:
            if (isinstance(obj, type) or type(obj) is FunctionType) and obj.__module__ in MAIN:
                found = self.home.name_of(obj)
                if found is not None:
                    return found
                if type(obj) is FunctionType:
                    file = io.BytesIO()
                    Pickler(file, PROTOCOL).dump(obj)
                    # One that came by value goes home: its program has it, under this name.
                    find = _called if obj.__globals__ is _main() else _own
                    return find, (obj.__qualname__, file.getvalue())
            if type(obj) is memoryview:
                return reduced_memory(obj)
            if isinstance(obj, io.IOBase):  # Otherwise its content would travel, as a StringIO.
                return obj.__reduce_ex__(PROTOCOL)
            return super().reducer_override(obj)

    return ByValue


def reduced_memory(value: memoryview) -> Any:
    """Reduce a memoryview; cloudpickle would make bytes of it."""
    if value.format != "B" or value.ndim != 1:
        raise TypeError("a memoryview that is not of plain bytes; send value.tobytes()")
    return memoryview, (value.tobytes(),)


def _called(qualname: str, pickled: bytes) -> Any:
    """Return the function that the called one uses too; else the pickled one."""
    made = pickle.loads(pickled)
    found = _member(called_globals(), qualname)
    return found if getattr(found, "__code__", None) == made.__code__ else made


def _own(qualname: str, pickled: bytes) -> Any:
    """Return the function of this program's ``__main__``; the pickled one if it has none."""
    found = _member(_main(), qualname)
    return found if type(found) is FunctionType else pickle.loads(pickled)


class Dumped(msgspec.Struct):
    """A pickled list, with the buffers that its pickle leaves out."""

    count: int
    pickle: bytes
    buffers: list[memoryview]

    @property
    def size(self) -> int:
        return len(self.pickle) + sum(buffer.nbytes for buffer in self.buffers)

    def encode(self) -> bytes:
        return runs.write(0, self.count, self.pickle, self.buffers)


def dump_any(value: Any, home: Home) -> Dumped:
    buffers: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # Not contiguous: it has to be copied anyway.
            return True
        if raw.nbytes < _BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    def dump(pickler: Any) -> bytes:
        buffers.clear()
        file = io.BytesIO()
        made = pickler(file, PROTOCOL, buffer_callback=is_small)
        made.home = home
        made.dump(value)
        return file.getvalue()

    try:
        data = dump(_ByName)
    except Exception:
        # It has no name, or cannot be pickled at all: this tells which.
        data = dump(_by_value())
    return Dumped(1, data, buffers)


def _main() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def _member(scope: dict[str, Any], qualname: str) -> Any:
    first, *rest = qualname.split(".")
    found = scope.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found
