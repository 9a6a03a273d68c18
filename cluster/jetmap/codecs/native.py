"""Codecs for types that msgspec knows, with one C call for a list."""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from .finite import refuse_nan
from .late import delayed
from .records import record_classes, refuse_subclasses
from .types import has_datetimes, is_numpy_scalar, runs_code, shares_bytes
from .untyped import (
    SCALARS,
    Tagger,
    is_plain,
    is_plain_value,
    is_untyped,
    tag_walked,
    tagger_for,
    travel_hint,
    walk,
)
from .zones import encode_with_offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetmap.codecs import Parameter
    from jetmap.wire.messages import Format


# JSON Schema's names for numpy's kinds of scalars, and the types that these decode from.
_LIKE = {"integer": "integer", "floating": "number", "bool_": "boolean", "str_": "string"}
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "boolean": (bool,), "string": (str,),
}  # fmt: skip


# Values without an annotation whose types are checked together.
_LOOKED_AT = 256


def encode_other(value: Any) -> Any:
    """Convert a value that msgspec does not encode: a numpy scalar, or a subclass of a builtin.

    Raises TypeError for a value that cannot travel, and for a moment or duration that would lose
    precision.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _from_numpy(value)
    for base in (str, int, float, bytes):
        if isinstance(value, base):
            return _plain(base, value)
    if isinstance(value, (dt.date, dt.time, dt.timedelta)):
        return _exact_moment(value)
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return decimal.Decimal(value) if isinstance(value, decimal.Decimal) else _plain_uuid(value)
    hint = "; convert it with .tolist()" if hasattr(value, "tolist") else ""
    if known := travel_hint(value):
        hint = f"; {known}"
    raise TypeError(f"a value of type {_type_name(value)} cannot travel{hint}")


def _from_numpy(value: Any) -> Any:
    numpy = sys.modules["numpy"]
    if isinstance(value, (numpy.datetime64, numpy.timedelta64)):
        return _from_numpy_moment(value)
    plain = value.item()
    return float(plain) if isinstance(plain, numpy.floating) else plain


def _from_numpy_moment(value: Any) -> Any:
    """Convert to a date, datetime or timedelta if that is exactly the same."""
    numpy = sys.modules["numpy"]
    plain = value.item()
    if isinstance(plain, int):  # Finer than a microsecond, or without a fixed length.
        unit, _ = numpy.datetime_data(value.dtype)
        coarse = value.astype(f"{type(value).__name__}[us]") if unit in _FINE_UNITS else value
        plain = coarse.item() if coarse == value else None
    if plain is None or isinstance(plain, int):
        raise TypeError(
            f"numpy.{value!r} is not exactly a Python {_MOMENTS[type(value).__name__]}, so it "
            "cannot travel as one; convert it, or leave out the annotation"
        )
    return plain


_MOMENTS = {"datetime64": "datetime", "timedelta64": "timedelta"}
_FINE_UNITS = ("ns", "ps", "fs", "as")


def _exact_moment(value: Any) -> Any:
    """Convert a subclass of a date, time or duration (such as pandas') to its base."""
    nanoseconds = getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0)
    if nanoseconds or value != value:
        why = "is not a moment" if value != value else "has nanoseconds"
        raise TypeError(
            f"{value!r} {why}, so it cannot travel as a Python {_moment_base(value).__name__}; "
            "convert it (round to microseconds), or leave out the annotation"
        )
    base = _moment_base(value)
    if base is dt.timedelta:
        return dt.timedelta(value.days, value.seconds, value.microseconds)
    if base is dt.date:
        return dt.date(value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
    if base is dt.time:
        return dt.time(*clock, fold=value.fold)
    return dt.datetime(value.year, value.month, value.day, *clock, fold=value.fold)


def _moment_base(value: Any) -> Any:
    return next(c for c in (dt.datetime, dt.date, dt.time, dt.timedelta) if isinstance(value, c))


def _plain_uuid(value: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(int=value.int)


def decode_other(type: Any, value: Any) -> Any:
    """Make a numpy scalar, as strictly as the Python type that it resembles."""
    if type is object:
        return value
    numpy = sys.modules["numpy"]
    if not is_numpy_scalar(type):
        raise TypeError(f"Expected `{type.__qualname__}`")
    kind = next((k for like, k in _LIKE.items() if issubclass(type, getattr(numpy, like))), "")
    accepted = _ACCEPTED.get(kind, ())
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        raise TypeError(f"Expected `numpy.{type.__name__}`, got `{_type_name(value)}`")
    try:
        return type(value)
    except OverflowError as exc:
        raise ValueError(str(exc)) from exc


_json = msgspec.json.Encoder(enc_hook=encode_other)
_msgpack = msgspec.msgpack.Encoder(enc_hook=encode_other)


def _with_offsets(value: Any) -> bytes:
    return encode_with_offsets(value, _msgpack)


def encode(value: Any, format: Format, *, has_datetimes: bool = True) -> bytes:
    """Encode a value of types that msgspec knows. Raises the errors of ``Codec``.

    Args:
        has_datetimes: Whether there may be aware datetimes, whose offsets are kept.
    """
    if format != "json":
        try:
            return _msgpack.encode(value) if not has_datetimes else _with_offsets(value)
        except OverflowError:
            if not has_datetimes:  # Perhaps it is the moment of a datetime that does not fit.
                return encode(value, format)
            raise OverflowError(
                "an integer of over 64 bits travels only where there is no annotation: leave it "
                "out, or use text"
            ) from None
    encoded = _json.encode(value)
    refuse_nan(encoded, value, encode_other)
    return encoded


class Tags(NamedTuple):
    """A way for values without an annotation to travel in the format "python".

    Attributes:
        tag: Replaces such a value by what MessagePack knows.
        restore: Makes the value of an extension again.
    """

    tag: Tagger
    restore: Callable[[int, memoryview], Any]


class NativeCodec:
    """A ``Codec`` that uses msgspec."""

    keeps_bytes = True

    def __init__(self, type: Any, tags: Tags | None = None) -> None:
        self._type = type
        self._tags = tags or WALKED
        self._lists = _decoders(list[type], self._tags)
        self._items: dict[str, Any] = {}
        self._tag = tagger_for(type, self._tags.tag)
        self.is_open = self._tag is not None
        self._has_datetimes = has_datetimes(type)
        self._records = record_classes(type)

    @cached_property
    def runs_code(self) -> bool:
        return runs_code(self._type)

    @cached_property
    def _shares_bytes(self) -> bool:
        return shares_bytes(self._type)

    @cached_property
    def _owned(self) -> dict[str, Any]:
        """Decoders that refuse extensions: some share the bytes, or run code of users."""
        return _decoders(list[self._type], Tags(self._tags.tag, refuse_extension))  # type: ignore[name-defined]

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        return cast("list[Any]", self._lists[format].decode(data))

    def decode_late(self, data: bytes, format: Format) -> list[Any]:
        if self.runs_code:
            return delayed(self, data, format)
        return self.decode_list(data, format)

    def decode_owned(self, data: memoryview, format: Format) -> list[Any] | None:
        if self.runs_code or self._shares_bytes:
            return None
        try:
            return cast("list[Any]", self._owned[format].decode(data))
        except ExtensionError:
            return None

    def decode(self, data: bytes, format: Format) -> Any:
        if not self._items:
            self._items = _decoders(self._type, self._tags)
        return self._items[format].decode(data)

    def prepare(self, values: list[Any], format: Format) -> list[Any]:
        if format != "python" or self._tag is None:
            return values
        if self._records:  # They are dicts afterwards.
            refuse_subclasses(values, self._records)
        if not is_untyped(self._type):
            return [self._tag(value) for value in values]
        if SCALARS.issuperset(map(type, values)):
            return values
        prepared: list[Any] = []
        for start in range(0, len(values), _LOOKED_AT):
            some = values[start : start + _LOOKED_AT]
            prepared += some if is_plain(some) else map(self._tag, some)
        return prepared

    def encode_prepared(self, values: list[Any], format: Format) -> bytes:
        if self._records and format != "json" and (format != "python" or self._tag is None):
            refuse_subclasses(values, self._records)
        return self._encode(values, format)

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        return self.encode_prepared(self.prepare(values, format), format)

    def encode(self, value: Any, format: Format) -> bytes:
        if self._records and type(value) not in self._records and format != "json":
            refuse_subclasses((value,), self._records)
        if format == "python" and self._tag is not None:
            value = self._tag(value)
        return self._encode(value, format)

    def _encode(self, prepared: Any, format: Format) -> bytes:
        if format == "python" and self._tag is not None:
            return encode_tagged(prepared, has_datetimes=self._has_datetimes)
        return encode(prepared, format, has_datetimes=self._has_datetimes or self.is_open)

    def is_quick(self, value: Any) -> bool:
        return not self.runs_code or is_plain_value(value)

    def schema(self) -> dict[str, Any]:
        if is_untyped(self._type):
            return {}
        return msgspec.json.schema(self._type, schema_hook=_schema_of_other)


class NativeKwargs:
    """A ``Codec`` of dicts of keyword arguments that uses msgspec."""

    keeps_bytes = False

    def __init__(
        self, name: str, parameters: Sequence[Parameter], tags: Tags | None = None
    ) -> None:
        tags = tags or WALKED
        self._struct = msgspec.defstruct(
            name, [_field(p) for p in parameters], kw_only=True, forbid_unknown_fields=True
        )
        self._name, self._parameters = name, parameters
        self._lists = _decoders(list[self._struct], tags)  # type: ignore[name-defined]
        self._items = _decoders(self._struct, tags)
        self._records = records_of(parameters)
        taggers = {each.name: tagger_for(each.type, tags.tag) for each in parameters}
        self._taggers = {name: tagger for name, tagger in taggers.items() if tagger is not None}
        self.is_open = bool(self._taggers)

    @property
    def runs_code(self) -> bool:
        return any(runs_code(parameter.type) for parameter in self._parameters)

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        return [_given(each) for each in self._lists[format].decode(data)]

    def decode_late(self, data: bytes, format: Format) -> list[Any]:
        return delayed(self, data, format)

    def decode_owned(self, data: memoryview, format: Format) -> list[Any] | None:
        return None

    def decode(self, data: bytes, format: Format) -> Any:
        if not data and not self._parameters:
            return {}
        return _given(self._items[format].decode(data or encode({}, format)))

    def prepare(self, values: list[Any], format: Format) -> list[Any]:
        for value in values:
            check_names(self._name, self._parameters, value)
            if format != "json":
                check_records(self._records, value)
        if format != "python" or not self.is_open:
            return values
        return [self._tagged(value) for value in values]

    def encode_prepared(self, values: list[Any], format: Format) -> bytes:
        open = format == "python" and self.is_open
        return encode_tagged(values) if open else encode(values, format)

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        return self.encode_prepared(self.prepare(values, format), format)

    def encode(self, value: Any, format: Format) -> bytes:
        (prepared,) = self.prepare([value], format)
        open = format == "python" and self.is_open
        return encode_tagged(prepared) if open else encode(prepared, format)

    def is_quick(self, value: Any) -> bool:
        return not self.runs_code

    def schema(self) -> dict[str, Any]:
        return inlined(msgspec.json.schema(self._struct, schema_hook=_schema_of_other))

    def _tagged(self, value: dict[str, Any]) -> dict[str, Any]:
        taggers = self._taggers
        return {
            name: taggers[name](member) if name in taggers else member
            for name, member in value.items()
        }


def encode_tagged(value: Any, *, has_datetimes: bool = True) -> bytes:
    """Encode a value whose parts without an annotation are tagged, as MessagePack."""
    pack = _with_offsets if has_datetimes else _msgpack.encode
    return cast("bytes", walk().encode_walked(value, pack))


def check_names(name: str, parameters: Sequence[Parameter], kwargs: dict[str, Any]) -> None:
    """Raise TypeError, as a call would, for an unknown or a missing keyword argument."""
    known = {parameter.name for parameter in parameters}
    for given in kwargs:
        if given not in known:
            raise TypeError(f"{name}() got an unexpected keyword argument {given!r}")
    for parameter in parameters:
        if not parameter.optional and parameter.name not in kwargs:
            raise TypeError(f"{name}() misses its keyword argument {parameter.name!r}")


def records_of(parameters: Sequence[Parameter]) -> dict[str, frozenset[type]]:
    """Return the classes of the parameters that are annotated with a record."""
    found = {parameter.name: record_classes(parameter.type) for parameter in parameters}
    return {name: classes for name, classes in found.items() if classes}


def check_records(records: dict[str, frozenset[type]], kwargs: dict[str, Any]) -> None:
    """Raise TypeError for a keyword argument that would lose fields."""
    for name, classes in records.items():
        if name in kwargs:
            refuse_subclasses((kwargs[name],), classes)


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace a schema that only refers to one of its own definitions by that definition."""
    prefix = "#/$defs/"
    reference = schema.get("$ref", "")
    definitions = dict(schema.get("$defs", {}))
    if not reference.startswith(prefix):
        return schema
    top = definitions.pop(reference.removeprefix(prefix))
    return {**top, "$defs": definitions} if definitions else top


def with_default(parameter: Parameter) -> dict[str, Any]:
    """Return the schema's entry for a parameter's default; empty if JSON cannot express it."""
    try:
        return {"default": msgspec.json.decode(encode(parameter.default, "json"))}
    except (TypeError, ValueError, RecursionError):
        return {}


def _field(parameter: Parameter) -> Any:
    if not parameter.optional:
        return parameter.name, parameter.type
    type = parameter.type
    extra = with_default(parameter)
    if extra:
        from typing import Annotated

        type = Annotated[type, msgspec.Meta(extra_json_schema=extra)]
    return parameter.name, type | msgspec.UnsetType, msgspec.UNSET


def _given(struct: Any) -> dict[str, Any]:
    return {k: v for k, v in msgspec.structs.asdict(struct).items() if v is not msgspec.UNSET}


def _decoders(type: Any, tags: Tags) -> dict[str, Any]:
    packed = msgspec.msgpack.Decoder(type, dec_hook=decode_other, ext_hook=tags.restore)
    return {
        "json": msgspec.json.Decoder(type, dec_hook=decode_other),
        "msgpack": msgspec.msgpack.Decoder(type, dec_hook=decode_other),
        "python": packed,
    }


class ExtensionError(Exception):
    """An array has an extension, so it cannot be decoded where it is."""


def refuse_extension(code: int, data: memoryview) -> Any:
    """Raise ExtensionError, in the place of what makes a value of an extension."""
    raise ExtensionError


def restore_walked(code: int, data: memoryview) -> Any:
    """Make a value again that a walk has tagged."""
    return walk().restore(code, data)


WALKED = Tags(tag_walked, restore_walked)


def _schema_of_other(type: Any) -> dict[str, Any]:
    if type is object:
        return {"title": "any value"}
    for like, kind in _LIKE.items():
        if issubclass(type, getattr(sys.modules["numpy"], like)):
            return {"type": kind, "title": f"numpy.{type.__name__}"}
    raise NotImplementedError


def _plain(base: Any, value: Any) -> Any:
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__int__(value)
    return float.__float__(value) if base is float else bytes(value)


def _type_name(value: object) -> str:
    cls = type(value)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
