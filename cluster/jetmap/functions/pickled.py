"""The format "pickle": values without an annotation, between processes that trust each other.

Pickle protocol 5 with buffers out of band and no walk. Lists of builtins travel as runs, many items
in one pickle. Other items travel alone, because one that cannot be loaded must not cost its
neighbours. What pickle cannot write, such as a memoryview, is tagged by a walk if that can.
"""

from __future__ import annotations

import datetime as dt
import decimal
import io
import math
import pickle
import sys
import uuid
from collections.abc import Iterator
from itertools import chain, groupby, repeat
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from jetmap.codecs import Codec, Tags, codec_for, kwargs_codec
from jetmap.codecs.untyped import SCALARS, Tagger, is_untyped, walk
from jetmap.machine import MAIN
from jetmap.wire import runs

from .function import Function
from .pickles import called_globals, find_class, loading, loads, named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetmap.codecs import Parameter
    from jetmap.wire.messages import Format

PROTOCOL = 5
PART_CODE = 76  # Code of the extension that holds one pickled part of an annotated value.
RUN_ITEMS = 256  # Items of a run, at most.
RUN_BYTES = 16 << 10  # Bytes of a run of more than one item, about.
_BUFFER_BYTES = 4 << 10  # Bytes of a buffer that stays out of its pickle, at least.
_KEPT_BYTES = 64 << 10  # Bytes of an encoded run that is kept until its items are taken, at most.
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


class _ApartError(Exception):
    """An item holds more than builtins, so it travels alone."""


class _ByValueError(Exception):
    """A class or function of a script must travel by value."""


class _Builtins(pickle.Pickler):
    """Pickle builtins only: everything but builtin containers and scalars comes here."""

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        if cls in _SAFE or (cls is type and obj in _SAFE):
            return NotImplemented
        raise _ApartError


class _ByName(pickle.Pickler):
    """Pickle as ever, but classes and functions of the script by the script's name."""

    home: Home

    def reducer_override(self, obj: Any) -> Any:
        if (isinstance(obj, type) or type(obj) is FunctionType) and obj.__module__ in MAIN:
            found = self.home.name_of(obj)
            if found is None:
                raise _ByValueError
            return found
        return _memory(obj) if type(obj) is memoryview else NotImplemented


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
                return _memory(obj)
            if isinstance(obj, io.IOBase):  # Otherwise its content would travel, as a StringIO.
                return obj.__reduce_ex__(PROTOCOL)
            return super().reducer_override(obj)

    return ByValue


def _memory(value: memoryview) -> Any:
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


class _Dumped(msgspec.Struct):
    """A pickled list, with the buffers that its pickle leaves out."""

    count: int
    pickle: bytes
    buffers: list[memoryview]

    @property
    def size(self) -> int:
        return len(self.pickle) + sum(buffer.nbytes for buffer in self.buffers)

    def encode(self) -> bytes:
        return runs.write(0, self.count, self.pickle, self.buffers)


class PickledCodec:
    """A ``Codec`` of values without any annotation."""

    is_open = True

    def __init__(self, home: Home) -> None:
        self._home = home
        self._plain = codec_for(Any)
        self._count = 16  # Items of the next run.

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        if format != "pickle":
            return self._plain.decode_list(data, format)
        with loading(self._home.scope, self._home.globals):
            parts = _decode_list(data)
        kinds = set(map(type, parts))
        if _Loaded not in kinds:
            return parts
        if len(kinds) == 1:
            return list(chain.from_iterable(parts))
        values: list[Any] = []
        for part in parts:
            if type(part) is _Loaded:
                values += part
            else:
                values.append(part)
        return values

    def decode(self, data: bytes, format: Format) -> Any:
        if format != "pickle":
            return self._plain.decode(data, format)
        with loading(self._home.scope, self._home.globals):
            found = _decode(data)
        if type(found) is not _Loaded:
            return found
        (value,) = found
        return value

    def prepare(self, values: list[Any], format: Format) -> list[Any]:
        """Pickle all values; return each with the run that it is in. Scalars stay as they are."""
        if format != "pickle":
            return self._plain.prepare(values, format)
        if SCALARS.issuperset(map(type, values)):
            return values
        prepared: list[Any] = []
        for run in self._runs(values, _KEPT_BYTES):
            prepared += zip(repeat(run), range(len(run[0])))
        return prepared

    def encode_prepared(self, values: list[Any], format: Format) -> bytes:
        if format != "pickle":
            return self._plain.encode_prepared(values, format)
        kinds = set(map(type, values))
        if tuple not in kinds:
            return self.encode_list(values, format)
        if len(kinds) > 1:
            values = [each if type(each) is tuple else (([each], b""), 0) for each in values]
        elements: list[bytes] = []
        for _, group in groupby(values, lambda pair: id(pair[0])):
            members = list(group)
            (some, encoded), start = members[0]
            if encoded and len(members) == len(some):
                elements.append(encoded)
            else:
                rest = some[start : start + len(members)]
                elements += map(itemgetter(1), self._runs(rest))
        return _array(elements)

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        if format != "pickle":
            return self._plain.encode_list(values, format)
        if SCALARS.issuperset(map(type, values)):
            try:
                return _encode(values)
            except (OverflowError, UnicodeEncodeError):
                pass  # An integer over 64 bits, or text that is not Unicode.
        return _array([encoded for _, encoded in self._runs(values)])

    def encode(self, value: Any, format: Format) -> bytes:
        if format != "pickle":
            return self._plain.encode(value, format)
        return self._alone(value)

    def schema(self) -> dict[str, Any]:
        return {}

    def _runs(self, values: list[Any], most: float = math.inf) -> Iterator[tuple[list[Any], bytes]]:
        """Yield some of the values at a time, and their element of an array.

        That is empty if their pickle has more than ``most`` bytes.
        """
        at = 0
        while at < len(values):
            some = values[at : at + self._count]
            at += len(some)
            try:
                file = io.BytesIO()
                _Builtins(file, PROTOCOL).dump(some)
            except (_ApartError, RecursionError):
                for value in some:
                    yield [value], self._alone(value, most)
                continue
            size = file.tell()
            self._count = min(RUN_ITEMS, max(1, RUN_BYTES * len(some) // size))
            if size > 2 * RUN_BYTES and len(some) > 1:
                at -= len(some)
                continue
            yield some, runs.write(0, len(some), file.getbuffer(), []) if size <= most else b""

    def _alone(self, value: Any, most: float = math.inf) -> bytes:
        try:
            dumped = _dump([value], self._home)
            return dumped.encode() if dumped.size <= most else b""
        except Exception as error:
            tagged: bytes = _walked(value, error, lambda value: self._plain.encode(value, "python"))
            return tagged


class PartlyPickledCodec:
    """A ``Codec`` of a type that is annotated in part, or entirely.

    Args:
        codec: Made with ``tags_for``.
    """

    def __init__(self, codec: Codec, home: Home) -> None:
        self._codec = codec
        self._home = home
        self.is_open = codec.is_open

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        with loading(self._home.scope, self._home.globals):
            return self._codec.decode_list(data, _without_runs(format))

    def decode(self, data: bytes, format: Format) -> Any:
        with loading(self._home.scope, self._home.globals):
            return self._codec.decode(data, _without_runs(format))

    def prepare(self, values: list[Any], format: Format) -> list[Any]:
        return self._codec.prepare(values, _without_runs(format))

    def encode_prepared(self, values: list[Any], format: Format) -> bytes:
        return self._codec.encode_prepared(values, _without_runs(format))

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        return self._codec.encode_list(values, _without_runs(format))

    def encode(self, value: Any, format: Format) -> bytes:
        return self._codec.encode(value, _without_runs(format))

    def schema(self) -> dict[str, Any]:
        return self._codec.schema()


class PicklingFunction(Function):
    """A function whose codecs read and write the format "pickle".

    Args:
        far: Whether the workers are on other hosts, without this process's script.
    """

    __slots__ = ("_home",)

    def __init__(self, function: Function, *, far: bool = False) -> None:
        for name in Function.__slots__:
            if name != "__weakref__":
                setattr(self, name, getattr(function, name))
        self._codecs = {}
        self._home = Home.of(function, far=far)

    def _codec_for(self, hint: Any, *, output: bool) -> Codec:
        if is_untyped(hint):
            return PickledCodec(self._home)
        tags = tags_for(self._home)
        return PartlyPickledCodec(codec_for(hint, output=output, tags=tags), self._home)

    def _kwargs_codec_for(self, parameters: Sequence[Parameter]) -> Codec:
        codec = kwargs_codec(self.name, parameters, tags_for(self._home))
        return PartlyPickledCodec(codec, self._home)


def tags_for(home: Home) -> Tags:
    """Return a way for the open parts of annotated values to travel: each in a pickle."""

    def tag(value: Any) -> Any:
        if type(value) in SCALARS:
            return value
        try:
            dumped = _dump(value, home)
        except Exception as error:
            return _walked(value, error, walk().tag_outermost)
        return Ext(PART_CODE, dumped.encode())

    return Tags(tag, _restore)


class _Loaded(list[Any]):
    """The values of a run."""


def _restore(code: int, data: memoryview) -> Any:
    if code == runs.CODE:
        run = runs.read(data)
        return _Loaded(_load(run)[run.start : run.stop])
    if code == PART_CODE:
        return _load(runs.read(memoryview(_decode_run(data).data)))
    return walk().restore(code, data)


def _load(run: runs.Run) -> Any:
    # Private to this process, and writable, as a buffer in a pickle would be.
    return loads(run.pickle, [bytearray(buffer) for buffer in run.buffers])


_encode = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder().decode
_decode = msgspec.msgpack.Decoder(ext_hook=_restore).decode
_decode_list = msgspec.msgpack.Decoder(list[Any], ext_hook=_restore).decode


def _dump(value: Any, home: Home) -> _Dumped:
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
    return _Dumped(1, data, buffers)


def _array(elements: list[bytes]) -> bytes:
    from jetmap.wire.arrays import header

    return b"".join((header(len(elements)), *elements))


def _without_runs(format: Format) -> Format:
    return "python" if format == "pickle" else format


def _walked(value: Any, error: Exception, tag: Tagger) -> Any:
    """Tag a value that cannot be pickled. Raises TypeError if that cannot be done either."""
    try:
        return tag(value)
    except RecursionError:
        raise
    except Exception:
        why = f"it cannot be pickled ({error}): send builtins, a dataclass, or bytes of your own"
        raise TypeError(walk().refusal(value, why)) from error


def _main() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def _member(scope: dict[str, Any], qualname: str) -> Any:
    first, *rest = qualname.split(".")
    found = scope.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found
