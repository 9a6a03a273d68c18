"""Types that msgspec knows: one C call a list."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import msgspec

from .finite import refuse_nan
from .kinds import is_numpy_scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetmap.messages import Format

    from . import Parameter


# numpy's kinds of scalars, as JSON Schema calls them, and what these decode from.
_LIKE = {"integer": "integer", "floating": "number", "bool_": "boolean", "str_": "string"}
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "boolean": (bool,), "string": (str,),
}  # fmt: skip


def encode_other(value: Any) -> Any:
    """What msgspec does not encode itself: numpy scalars and subclasses of builtins."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        plain = value.item()
        return float(plain) if isinstance(plain, numpy.floating) else plain
    for base in (str, int, float, bytes):
        if isinstance(value, base):
            return _plain(base, value)
    hint = "; convert it with .tolist()" if hasattr(value, "tolist") else ""
    raise TypeError(f"a value of type {_type_name(value)} cannot travel{hint}")


def decode_other(type: Any, value: Any) -> Any:
    """Numpy scalars, as strict as the Python types that they are like."""
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


def encode(value: Any, format: Format) -> bytes:
    """Any value of types that msgspec knows. Raises as ``Codec`` says."""
    if format == "msgpack":
        return _msgpack.encode(value)
    encoded = _json.encode(value)
    refuse_nan(encoded, value, encode_other)
    return encoded


class NativeCodec:
    """A ``Codec`` by msgspec."""

    def __init__(self, type: Any) -> None:
        self._type = type
        self._lists = _decoders(list[type])
        self._items: dict[str, Any] = {}

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        return cast("list[Any]", self._lists[format].decode(data))

    def decode(self, data: bytes, format: Format) -> Any:
        if not self._items:
            self._items = _decoders(self._type)
        return self._items[format].decode(data)

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        return encode(values, format)

    def encode(self, value: Any, format: Format) -> bytes:
        return encode(value, format)

    def schema(self) -> dict[str, Any]:
        if self._type is Any:
            return {}
        return msgspec.json.schema(self._type, schema_hook=_schema_of_other)


class NativeKwargs:
    """A ``Codec`` of dicts of keyword arguments, by msgspec."""

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        self._struct = msgspec.defstruct(
            name, [_field(p) for p in parameters], kw_only=True, forbid_unknown_fields=True
        )
        self._name, self._parameters = name, parameters
        self._lists = _decoders(list[self._struct])  # type: ignore[name-defined]
        self._items = _decoders(self._struct)

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        return [_given(each) for each in self._lists[format].decode(data)]

    def decode(self, data: bytes, format: Format) -> Any:
        return _given(self._items[format].decode(data or encode({}, format)))

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        for value in values:
            check_names(self._name, self._parameters, value)
        return encode(values, format)

    def encode(self, value: Any, format: Format) -> bytes:
        check_names(self._name, self._parameters, value)
        return encode(value, format)

    def schema(self) -> dict[str, Any]:
        return inlined(msgspec.json.schema(self._struct, schema_hook=_schema_of_other))


def check_names(name: str, parameters: Sequence[Parameter], kwargs: dict[str, Any]) -> None:
    """Raise TypeError, as a call would, for an unknown or a missing keyword argument."""
    known = {parameter.name for parameter in parameters}
    for given in kwargs:
        if given not in known:
            raise TypeError(f"{name}() got an unexpected keyword argument {given!r}")
    for parameter in parameters:
        if not parameter.optional and parameter.name not in kwargs:
            raise TypeError(f"{name}() misses its keyword argument {parameter.name!r}")


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that is only a reference to a definition of its own, as that definition."""
    prefix = "#/$defs/"
    reference = schema.get("$ref", "")
    definitions = dict(schema.get("$defs", {}))
    if not reference.startswith(prefix):
        return schema
    top = definitions.pop(reference.removeprefix(prefix))
    return {**top, "$defs": definitions} if definitions else top


def with_default(parameter: Parameter) -> dict[str, Any]:
    """What a parameter's schema says of its default: nothing, if JSON cannot."""
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


def _decoders(type: Any) -> dict[str, Any]:
    return {
        "json": msgspec.json.Decoder(type, dec_hook=decode_other),
        "msgpack": msgspec.msgpack.Decoder(type, dec_hook=decode_other),
    }


def _schema_of_other(type: Any) -> dict[str, Any]:
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
