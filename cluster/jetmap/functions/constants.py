"""Values that a caller puts once: their bytes, and functions that get them as keyword arguments.

The bytes begin with a head and go on with sections, each at a multiple of 64. Between processes
that trust each other these are a pickle and the buffers that it leaves out, which are not copied
when it is loaded: arrays are views of shared memory that nobody can write to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, cast

import msgspec

from jetmap.codecs import Codec, codec_for, types
from jetmap.codecs.untyped import walk
from jetmap.wire.constants import WHOLE, Constant, unpack_kwargs
from jetmap.wire.messages import Format

from .function import Function
from .locating import running_main
from .pickles import loading, loads

ALIGN = 64  # Sections begin at multiples of this.
_SIZE = 8  # Bytes of the head's length.
_MAPS = 4  # Maps whose large keyword parameters a worker keeps decoded, at most.

Buffer = bytes | memoryview
# Returns the bytes of a constant. Raises LookupError if they cannot be had.
ReadConstant = Callable[[Constant], memoryview]


ContentKind = Literal["pickle", "python", "array", "kwargs"]


class Head(msgspec.Struct):
    """The description of a value's bytes.

    kind: "pickle", or "python" for values tagged by a walk; "array" for a NumPy array; "kwargs" for
    encoded keyword parameters. main: the script whose classes the pickle names. sizes: bytes of
    each section.
    """

    kind: ContentKind
    main: str | None
    sizes: list[int]


class _Whole(NamedTuple):
    """Keyword parameters that are one constant, but for some, in one map."""

    map: str
    digest: str
    function: Function
    but: frozenset[str]


_head = msgspec.msgpack.Decoder(Head).decode


class Content:
    """The bytes of a value, in sections that are not joined yet."""

    def __init__(self, kind: ContentKind, sections: list[Buffer]) -> None:
        self.is_pickled = kind == "pickle"
        main = running_main() if self.is_pickled else None
        sizes = [memoryview(section).nbytes for section in sections]
        head = msgspec.msgpack.encode(Head(kind, main, sizes))
        self._parts = [len(head).to_bytes(_SIZE, "little") + head, *sections]
        self.size = [offset + memoryview(part).nbytes for offset, part in self][-1]

    def __iter__(self) -> Iterator[tuple[int, Buffer]]:
        """Iterate over the parts to write, each with its offset."""
        offset = 0
        for part in self._parts:
            yield offset, part
            offset = _aligned(offset + memoryview(part).nbytes)


def dump(value: Any, *, pickled: bool) -> Content:
    """Encode a value, without copying its large buffers.

    Args:
        pickled: Pickle it, for workers that trust this process; else tag it by a walk.

    Raises:
        TypeError: The value cannot travel.
    """
    try:
        if not pickled:
            walked = codec_for(Any)
            if "numpy" in sys.modules:
                walk()  # It imports what follows.
                from jetmap.codecs.scientific import array_parts

                if (parts := array_parts(value)) is not None:
                    return Content("array", [walked.encode(parts[0], "python"), parts[1]])
            return Content("python", [walked.encode(value, "python")])
        from .picklers import Home, dump_any

        scope = vars(sys.modules["__main__"]) if running_main() is not None else None
        dumped = dump_any(value, Home(scope, scope))
    except Exception as error:
        raise TypeError(f"the value cannot be put: {error}") from error
    return Content("pickle", [dumped.pickle, *dumped.buffers])


def load(data: memoryview, *, trusted: bool, scope: dict[str, Any] | None = None) -> Any:
    """Decode a value; its buffers stay in ``data``.

    Args:
        trusted: Whether pickles may be loaded.
        scope: Globals of the function that gets it.

    Raises PermissionError for a pickle that may not be loaded, and whatever decoding raises.
    """
    head, sections = _sections(data)
    if head.kind != "pickle":
        found = codec_for(Any).decode(cast("bytes", sections[0]), "python")
        if head.kind == "python":
            return found
        walk()  # It imports what follows.
        from jetmap.codecs.scientific import array_on

        return array_on(found, sections[1])
    if not trusted:
        raise PermissionError(
            "it is pickled, and this worker does not load pickles (--trust-pickle)"
        )
    is_other = head.main not in (None, running_main()) and types.run_script is not None
    home = _Script(head.main) if is_other and head.main is not None else None
    with loading(home, scope):
        return loads(sections[0], sections[1:])


class _Script(dict[str, Any]):
    """The globals of a script, which runs when one of its names is needed: few values need any."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def get(self, name: str, default: Any = None) -> Any:
        assert types.run_script is not None
        return vars(types.run_script(self._path)).get(name, default)


class LoadedConstants:
    """The values that this process has decoded, until they are dropped.

    Args:
        read: Returns the bytes of a constant.
    """

    def __init__(self, read: ReadConstant) -> None:
        self._read = read
        self._values: dict[str, Any] = {}
        self._kwargs: dict[_Whole, dict[str, Any]] = {}

    def drop(self, digest: str) -> None:
        """Forget a value."""
        self._values.pop(digest, None)
        for key in [key for key in self._kwargs if key.digest == digest]:
            del self._kwargs[key]

    def filled(self, function: Function, map: str, *, trusted: bool) -> Function:
        """Return a function whose codec of keyword parameters puts constants among them.

        Args:
            map: Id of the map that calls it.
            trusted: Whether pickles may be loaded.
        """
        return cast("Function", _Filled(function, self, map, trusted))

    def decode(
        self, kwargs: bytes, format: Format, function: Function, map: str, *, trusted: bool
    ) -> dict[str, Any]:
        """Return a function's keyword arguments. Raises ValueError if one cannot be had."""
        found = unpack_kwargs(kwargs)
        names = frozenset(found.constants) - {WHOLE}
        whole = found.constants.pop(WHOLE, None)
        if whole is not None:
            decoded = self._whole(_Whole(map, whole.digest, function, names), whole, format)
        else:
            decoded = function.kwargs_without(names).decode(found.rest, format)
        for name, constant in found.constants.items():
            try:
                decoded[name] = self._value(constant, function, trusted=trusted)
            except Exception as error:
                raise ValueError(f"the value put for {name!r} cannot be loaded: {error}") from error
        return decoded

    def _value(self, constant: Constant, function: Function, *, trusted: bool) -> Any:
        if constant.digest not in self._values:
            data = self._read(constant)
            self._values[constant.digest] = load(data, trusted=trusted, scope=function.scope)
        return self._values[constant.digest]

    def _whole(self, key: _Whole, constant: Constant, format: Format) -> dict[str, Any]:
        """Return the keyword arguments that are one constant, decoded once a map.

        Another map must not see what the function has changed in them.
        """
        if key not in self._kwargs:
            _, (data,) = _sections(self._read(constant))
            codec = key.function.kwargs_without(key.but) if key.but else key.function.kwargs
            while len(self._kwargs) >= _MAPS:
                del self._kwargs[next(iter(self._kwargs))]
            self._kwargs[key] = codec.decode(bytes(data), format)
        return dict(self._kwargs[key])


class _Filled:
    """A function as ``compute`` uses it: all but its keyword parameters is the other's."""

    runs_code = True  # As a codec, which may load pickles.

    def __init__(
        self, function: Function, constants: LoadedConstants, map: str, trusted: bool
    ) -> None:
        self._function = function
        self._constants = constants
        self._map = map
        self._trusted = trusted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    @property
    def kwargs(self) -> Codec:
        return cast("Codec", self)

    def decode(self, data: bytes, format: Format) -> dict[str, Any]:
        function, map = self._function, self._map
        return self._constants.decode(data, format, function, map, trusted=self._trusted)


def _sections(data: memoryview) -> tuple[Head, list[memoryview]]:
    length = int.from_bytes(data[:_SIZE], "little")
    head = _head(data[_SIZE : _SIZE + length])
    offset, sections = _aligned(_SIZE + length), []
    for size in head.sizes:
        sections.append(data[offset : offset + size])
        offset = _aligned(offset + size)
    return head, sections


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN
