"""The format "pickle": values without an annotation, between processes that trust each other.

Pickle protocol 5 with buffers out of band and no walk. Lists of builtins travel as runs, many items
in one pickle. Other items travel alone, because one that cannot be loaded must not cost its
neighbours. What pickle cannot write, such as a memoryview, is tagged by a walk if that can.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from jetmap.codecs import Codec, Tags, codec_for, kwargs_codec
from jetmap.codecs.late import Delayed, delayed
from jetmap.codecs.untyped import SCALARS, Tagger, is_plain_value, is_untyped, walk
from jetmap.wire import runs
from jetmap.wire.arrays import array_header

from .function import Function
from .picklers import PROTOCOL, ApartError, BuiltinsPickler, Home, dump_any
from .pickles import loading, loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetmap.codecs import Parameter
    from jetmap.wire.messages import Format

PART_CODE = 76  # Code of the extension that holds one pickled part of an annotated value.
RUN_ITEMS = 512  # Items of a run, at most.
RUN_BYTES = 16 << 10  # Bytes of a run of more than one item, about.
_KEPT_BYTES = 64 << 10  # Bytes of an encoded run that is kept until its items are taken, at most.


class PickledCodec:
    """A ``Codec`` of values without any annotation."""

    is_open = keeps_bytes = runs_code = True

    def __init__(self, home: Home) -> None:
        self._home = home
        self._plain = codec_for(Any)
        self._count = 16  # Items of the next run.
        self._spare: list[_RunPickler] = []  # Those that no thread uses now.

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        if format != "pickle":
            return self._plain.decode_list(data, format)
        with loading(self._home.scope, self._home.globals):
            return _flat(_decode_list(data))

    def decode_late(self, data: bytes, format: Format) -> list[Any]:
        """Decode one array; what is not of builtins only travels alone, and stays ``Delayed``."""
        if format != "pickle":
            return self._plain.decode_late(data, format)
        parts = _decode_list_late(data)
        for at, part in enumerate(parts):
            if type(part) is _Alone:
                parts[at] = Delayed(self, part.encoded, format)
        return _flat(parts)

    def decode_owned(self, data: memoryview, format: Format) -> list[Any] | None:
        return self._plain.decode_owned(data, _without_runs(format))

    def decode(self, data: bytes, format: Format) -> Any:
        if format != "pickle":
            return self._plain.decode(data, format)
        with loading(self._home.scope, self._home.globals):
            found = _decode(data)
        if type(found) is not _Loaded:
            return found
        (value,) = found.values
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

    def is_quick(self, value: Any) -> bool:
        return is_plain_value(value)

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
            pickler = self._pickler()
            try:
                data = pickler.dumps(some)
            except (ApartError, RecursionError):
                for value in some:
                    yield [value], self._alone(value, most)
                continue
            size = len(data)
            self._count = min(RUN_ITEMS, max(1, RUN_BYTES * len(some) // size))
            if size <= 2 * RUN_BYTES:  # Else its memo may be large, and is never made smaller.
                self._spare.append(pickler)
            elif len(some) > 1:
                at -= len(some)
                continue
            yield some, runs.write(0, len(some), data, []) if size <= most else b""

    def _pickler(self) -> _RunPickler:
        """Return a pickler for this thread alone, until it is put back."""
        try:
            return self._spare.pop()
        except IndexError:
            return _RunPickler()

    def _alone(self, value: Any, most: float = math.inf) -> bytes:
        try:
            dumped = dump_any([value], self._home)
            return dumped.encode() if dumped.size <= most else b""
        except Exception as error:
            tagged: bytes = _walked(value, error, lambda value: self._plain.encode(value, "python"))
            return tagged


class _RunPickler:
    """Pickle one run after the other; a pickler that is used again need not grow its memo."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._pickler = BuiltinsPickler(self._file, PROTOCOL)

    def dumps(self, values: list[Any]) -> bytes:
        """Pickle values. Do not use this object again if it raises."""
        self._pickler.dump(values)
        self._pickler.clear_memo()  # It refers to the values.
        data = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return data


class PartlyPickledCodec:
    """A ``Codec`` of a type that is annotated in part, or entirely.

    Args:
        codec: Made with ``tags_for``.
    """

    def __init__(self, codec: Codec, home: Home) -> None:
        self._codec = codec
        self._home = home
        self.is_open, self.keeps_bytes = codec.is_open, codec.keeps_bytes

    @property
    def runs_code(self) -> bool:
        return self.is_open or self._codec.runs_code

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        with loading(self._home.scope, self._home.globals):
            return self._codec.decode_list(data, _without_runs(format))

    def decode_late(self, data: bytes, format: Format) -> list[Any]:
        if self.runs_code:
            return delayed(self, data, format)
        return self.decode_list(data, format)

    def decode_owned(self, data: memoryview, format: Format) -> list[Any] | None:
        return None if self.runs_code else self._codec.decode_owned(data, _without_runs(format))

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

    def is_quick(self, value: Any) -> bool:
        return self._codec.is_quick(value) and (not self.is_open or is_plain_value(value))

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
            dumped = dump_any(value, home)
        except Exception as error:
            return _walked(value, error, walk().tag_outermost)
        return Ext(PART_CODE, dumped.encode())

    return Tags(tag, _restore)


class _Alone:
    """A run of one item that is not loaded yet: its element of the array."""

    __slots__ = ("encoded",)

    def __init__(self, data: memoryview) -> None:
        self.encoded = _encode(Ext(runs.CODE, data))


class _Loaded:
    """The values of a run."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values


def _flat(parts: list[Any]) -> list[Any]:
    """Return the items of an array that may have runs."""
    kinds = set(map(type, parts))
    if _Loaded not in kinds:
        return parts
    if len(parts) == 1:
        return parts[0].values  # type: ignore[no-any-return]
    if len(kinds) == 1:
        return list(chain.from_iterable([part.values for part in parts]))
    values: list[Any] = []
    for part in parts:
        if type(part) is _Loaded:
            values += part.values
        else:
            values.append(part)
    return values


def _restore(code: int, data: memoryview) -> Any:
    if code == runs.CODE:
        run = runs.read(data)
        values = _load(run)
        if run.stop - run.start != len(values):
            values = values[run.start : run.stop]
        return _Loaded(values)
    if code == PART_CODE:
        return _load(runs.read(memoryview(_decode_run(data).data)))
    return walk().restore(code, data)


def _restore_late(code: int, data: memoryview) -> Any:
    """Make a value again, unless loading it may run code of users."""
    if code == runs.CODE and runs.read(data).stop == 1:
        return _Alone(data)
    return _restore(code, data)


def _load(run: runs.Run) -> Any:
    if run.stop > 1:  # Builtins only, which have the same names everywhere.
        return pickle.loads(run.pickle)
    # Private to this process, and writable, as a buffer in a pickle would be.
    return loads(run.pickle, [bytearray(buffer) for buffer in run.buffers])


_encode = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder().decode
_decode = msgspec.msgpack.Decoder(ext_hook=_restore).decode
_decode_list = msgspec.msgpack.Decoder(list[Any], ext_hook=_restore).decode
_decode_list_late = msgspec.msgpack.Decoder(list[Any], ext_hook=_restore_late).decode


def _array(elements: list[bytes]) -> bytes:
    return b"".join((array_header(len(elements)), *elements))


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
        raise TypeError(walk().cannot_travel(value, why)) from error
