"""Pickle calls and results; large buffers travel beside the messages, as blobs.

A packed value is a pickle. If it has large parts, it is a record of the pickle and of the blobs
that hold them, so that messages stay small and a NumPy array is never copied into a pickle.
"""

from __future__ import annotations

import io
import pickle
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import cloudpickle
import msgspec

from jetmap.functions.by_value import Pickler
from jetmap.functions.picklers import reduced_memory
from jetmap.machine import MAIN

from .worker_globals import restored

# Bytes of a buffer, or of a whole pickle, that travels as a blob.
BLOB_BYTES = 100_000

PROTOCOL = 5
_PICKLE = b"\x80"  # The first byte of a pickle.
_NO_FILE = "<dynamic-code>"  # Written by cloudpickle in the place of a file's name.
# Types whose values plain pickle writes as cloudpickle would, in a tenth of the time.
_PLAIN = frozenset((bool, bytes, float, int, str, type(None)))
# The same of types that have a name, if it is not one of ``__main__``.
_NAMED = frozenset((FunctionType, BuiltinFunctionType, type))
# What ``multiprocessing`` sends between processes by descriptor.
_ENDS = frozenset((Connection, socket.socket))

Put = Callable[[memoryview], int]  # Keeps a buffer; returns the number of its blob.
Get = Callable[[int], memoryview]  # Returns a blob's buffer, private to the caller and writable.


class _Record(msgspec.Struct, array_like=True):
    """A value with large parts: its pickle, or the pickle's blob, and the blobs of its buffers."""

    pickle: bytes | int
    buffers: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class _Packer(Pickler):
    """Pickle as cloudpickle does, but bound methods by name, and code with the name of its file.

    A method that travelled by value would not be found in its class; a traceback needs the file.
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is CodeType:
            make, parts = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if p == _NO_FILE else p for p in parts)
        if type(obj) is MethodType:
            name = getattr(obj.__func__, "__name__", "")
            if getattr(obj.__self__, name, None) == obj:
                return getattr, (obj.__self__, name)
        if type(obj) in _ENDS:
            return _by_descriptor(obj)
        if type(obj) is memoryview:
            return reduced_memory(obj)
        reduced = super().reducer_override(obj)
        if type(obj) is FunctionType and type(reduced) is tuple and _is_mains(obj):
            make, arguments, state, *_, restore = reduced
            return make, arguments, (restore, state), None, None, restored
        return reduced


class _HomePacker(_Packer):
    """Pickle functions of ``__main__`` so that the caller finds its own ones."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType and obj.__module__ == "__main__":
            file = io.BytesIO()
            _Packer(file, PROTOCOL).dump(obj)
            return _own, (obj.__qualname__, file.getvalue())
        return super().reducer_override(obj)


def _by_descriptor(end: Any) -> Any:
    """Reduce a connection or a socket as process pools do, so that a worker gets it, too."""
    return ForkingPickler(io.BytesIO()).dispatch_table[type(end)](end)


def _is_mains(function: FunctionType) -> bool:
    return function.__globals__.get("__name__") == "__main__"


def _own(qualname: str, pickled: bytes) -> Any:
    """Return the function of this program's ``__main__``; the pickled one if it has none."""
    found: Any = sys.modules.get("__main__")
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if type(found) is FunctionType else pickle.loads(pickled)


def pack(value: Any, put: Put, *, home: bool = False) -> bytes:
    """Pickle a value; ``home``: to the program whose ``__main__`` its functions are of.

    Raises what pickling it raises.
    """
    if type(value) in _PLAIN and (type(value) not in (bytes, str) or len(value) < BLOB_BYTES):
        return pickle.dumps(value, PROTOCOL)
    if type(value) in _NAMED and (named := _by_name(value)):
        return named
    file, large = io.BytesIO(), list[memoryview]()

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # Not contiguous: it has to be copied anyway.
            return True
        if raw.nbytes < BLOB_BYTES:
            return True
        large.append(raw)
        return False

    try:
        (_HomePacker if home else _Packer)(file, PROTOCOL, is_small).dump(value)
    except pickle.PicklingError as error:
        if isinstance(error.__cause__, RecursionError):
            raise error.__cause__ from None  # As a process pool does; cloudpickle replaces it.
        raise
    data = file.getbuffer()
    # Only now: what was put for a value that cannot be pickled, nobody would release.
    blobs = list(map(put, large))
    if len(data) >= BLOB_BYTES:
        return _encode(_Record(put(data), blobs))
    return _encode(_Record(bytes(data), blobs)) if blobs else bytes(data)


def _by_name(value: Any) -> bytes:
    """Pickle a function or class by its name; return an empty text if it has none elsewhere."""
    module = value.__module__
    if not module or module in MAIN or cloudpickle.list_registry_pickle_by_value():
        return b""
    try:
        return pickle.dumps(value, PROTOCOL)
    except Exception:
        return b""  # It is local, or was replaced.


def packed_whole(value: Any) -> bytes:
    """Pickle a value with all its parts, for ``pickle.loads``. Raises what pickling it raises."""
    file = io.BytesIO()
    _Packer(file, PROTOCOL).dump(value)
    return file.getvalue()


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any], put: Put) -> bytes:
    """Pickle the arguments of a call."""
    if not kwargs and all(
        type(arg) in _PLAIN and (type(arg) not in (bytes, str) or len(arg) < 1000) for arg in args
    ):
        return pickle.dumps((args, kwargs), PROTOCOL)
    return pack((args, kwargs), put)


def unpack(data: bytes | memoryview, get: Get) -> Any:
    """Load a packed value. Raises what its unpickling raises."""
    if data[:1] == _PICKLE:
        return pickle.loads(data)
    record = _decode(data)
    body = get(record.pickle) if isinstance(record.pickle, int) else record.pickle
    return pickle.loads(body, buffers=[get(blob) for blob in record.buffers])


def blobs_of(data: bytes) -> list[int]:
    """List the blobs of a packed value."""
    if data[:1] == _PICKLE:
        return []
    record = _decode(data)
    return [record.pickle, *record.buffers] if isinstance(record.pickle, int) else record.buffers
