"""Codecs for types that need pydantic: models, its dataclasses, and constraints.

Values become MessagePack by way of builtins, and are validated as strict JSON: only in that mode
does pydantic accept a string for a datetime and a list for a tuple without being lax.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, NotRequired, cast

import msgspec
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, SchemaValidator, to_json, to_jsonable_python
from typing_extensions import TypedDict

from .changes import refuse_changes
from .finite import refuse_nan
from .late import delayed
from .native import check_names, check_records, encode_other, records_of, with_default
from .records import record_classes, refuse_subclasses
from .zones import encode_with_offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetmap.codecs import Parameter
    from jetmap.wire.messages import Format

_CONFIG = {"val_json_bytes": "base64", "ser_json_bytes": "base64", "ser_json_inf_nan": "constants"}
_CONFIGURED = frozenset(("model", "dataclass", "typed-dict"))
_OPAQUE = frozenset(("default", "metadata", "expected", "members", "cls"))
# Errors of a value that are shown; the others are counted.
_SHOWN_ERRORS = 3
# Serialization with the standard alphabet, as in JSON elsewhere; pydantic writes the one for URLs.
_STANDARD_BASE64 = {
    "type": "function-plain",
    "function": lambda value: b64encode(value).decode() if isinstance(value, bytes) else value,
    "when_used": "json",
}


class MisfitError(ValueError):
    """A value that does not fit its type; the message is short."""


class ModelCodec:
    """A ``Codec`` that uses pydantic."""

    keeps_bytes = False
    runs_code = True  # Validators and serializers.

    def __init__(self, type: Any, *, output: bool = False) -> None:
        self._output = output
        self._type = type
        self._list = _Adapter(list[type])
        self._item: _Adapter | None = None
        self.is_open = self._list.is_open
        self._records = record_classes(type)

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        return cast("list[Any]", self._list.decode(data, format))

    def decode_late(self, data: bytes, format: Format) -> list[Any]:
        return delayed(self, data, format)

    def decode_owned(self, data: memoryview, format: Format) -> list[Any] | None:
        return None

    def decode(self, data: bytes, format: Format) -> Any:
        return self._one().decode(data, format)

    def prepare(self, values: list[Any], format: Format) -> list[Any]:
        if format == "python" and self.is_open:
            for value in values:
                self.encode(value, format)
        return values

    def encode_prepared(self, values: list[Any], format: Format) -> bytes:
        self._check(values, format)
        return self._list.encode(values, format)

    def encode_list(self, values: list[Any], format: Format) -> bytes:
        self._check(values, format)
        encoded = self._list.encode(values, format)
        if format == "python" and self.is_open:
            refuse_changes(values, self._list.decode(encoded, format))
        return encoded

    def encode(self, value: Any, format: Format) -> bytes:
        self._check([value], format)
        encoded = self._one().encode(value, format)
        if format == "python" and self.is_open:
            refuse_changes(value, self._one().decode(encoded, format))
        return encoded

    def is_quick(self, value: Any) -> bool:
        return False

    def schema(self) -> dict[str, Any]:
        return self._one().schema(output=self._output)

    def _check(self, values: list[Any], format: Format) -> None:
        if self._records and format != "json":
            refuse_subclasses(values, self._records)

    def _one(self) -> _Adapter:
        if self._item is None:
            self._item = _Adapter(self._type)
        return self._item


class ModelKwargs(ModelCodec):
    """A ``Codec`` of dicts of keyword arguments that uses pydantic."""

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        hints = {p.name: NotRequired[p.type] if p.optional else p.type for p in parameters}
        make: Any = TypedDict
        type = make(name, hints)
        type.__pydantic_config__ = ConfigDict(extra="forbid")
        super().__init__(type)
        self._name, self._parameters = name, parameters
        self._parameter_records = records_of(parameters)

    def _check(self, values: list[Any], format: Format) -> None:
        for value in values:
            check_names(self._name, self._parameters, value)
            if format != "json":
                check_records(self._parameter_records, value)

    def decode(self, data: bytes, format: Format) -> Any:
        return super().decode(data or (b"{}" if format == "json" else b"\x80"), format)

    def schema(self) -> dict[str, Any]:
        schema = super().schema()
        for parameter in self._parameters:
            if parameter.optional and parameter.name in schema.get("properties", {}):
                schema["properties"][parameter.name].update(with_default(parameter))
        return schema


class _Adapter:
    """A type's validator and serializers, with bytes as base64 whatever its models configure."""

    def __init__(self, type: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(type)
            schema = self._adapter.core_schema
            # Values without an annotation travel as JSON here, and some types lose something: they
            # are compared afterwards.
            self.is_open = _mentions(schema, "any") or _loses(schema)
        except Exception as exc:
            raise TypeError(str(exc).partition("\n")[0]) from exc
        if _mentions(schema, "bytes"):
            self._validator = _build(SchemaValidator, _configured(schema))
        else:
            self._validator = self._adapter.validator
        self._to_json = _build(SchemaSerializer, _configured(schema))

    def decode(self, data: bytes, format: Format) -> Any:
        names = None
        if format != "json":
            names = True
            builtins = msgspec.msgpack.decode(data)
            data = to_json(builtins, inf_nan_mode="constants", bytes_mode="base64")
        try:
            return self._validator.validate_json(data, strict=True, by_alias=names, by_name=names)
        except ValidationError as exc:
            raise MisfitError(_in_words(exc)) from exc

    def encode(self, value: Any, format: Format) -> bytes:
        if format != "json":
            plain = self._adapter.dump_python(
                value, round_trip=True, by_alias=False, warnings=False, fallback=encode_other
            )
            return encode_with_offsets(plain, _msgpack)
        plain = self._to_json.to_python(
            value, mode="json", by_alias=True, warnings=False, fallback=encode_other
        )
        encoded = _json.encode(plain)
        refuse_nan(encoded, plain, _encode_any)
        return encoded

    def schema(self, *, output: bool) -> dict[str, Any]:
        mode = "serialization" if output else "validation"
        try:
            schema = self._adapter.json_schema(mode=cast("Any", mode), schema_generator=_Schemas)
        except PydanticInvalidForJsonSchema:  # JSON Schema cannot describe the type.
            return {}
        return cast("dict[str, Any]", _with_base64(schema))


class _Schemas(GenerateJsonSchema):
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}


def _encode_any(value: Any) -> Any:
    """Convert a value that pydantic leaves as it is and msgspec does not know, as URLs, paths."""
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    try:
        return encode_other(value)
    except TypeError:
        return to_jsonable_python(value)


_json = msgspec.json.Encoder(enc_hook=_encode_any)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_encode_any)


def _build(cls: Any, schema: Any) -> Any:
    # Otherwise a nested model would use the validator built for its class, with its own settings.
    return cls(schema, _CONFIG, _use_prebuilt=False)


def _mentions(schema: Any, kind: str) -> bool:
    if type(schema) is dict:
        if _kind(schema) == kind:
            return True
        return any(_mentions(schema[key], kind) for key in _inner(schema))
    return type(schema) in (list, tuple) and any(_mentions(part, kind) for part in schema)


def _loses(schema: Any) -> bool:
    """Return whether pydantic does not write everything of some value of a type.

    It leaves out a pattern's flags, a deque's maxlen, a defaultdict's own factory and excluded
    fields, and what type a model's extra fields have.
    """
    if type(schema) is dict:
        config = schema.get("config")
        if (
            _kind(schema) == "deque"
            or schema.get("serialization_exclude") is True
            or callable(schema.get("serialization_exclude_if"))
            or _allows_extra(schema.get("extras_behavior"))
            or (type(config) is dict and _allows_extra(config.get("extra_fields_behavior")))
        ):
            return True
        return any(_loses(schema[key]) for key in _inner(schema))
    if type(schema) in (list, tuple):
        return any(map(_loses, schema))
    function = getattr(schema, "func", schema)  # A defaultdict's is a partial.
    if getattr(function, "__module__", "") != "pydantic._internal._validators":
        return False
    name: str = function.__name__
    return name.startswith(("pattern_", "defaultdict_", "deque_"))


def _allows_extra(behavior: Any) -> bool:
    return isinstance(behavior, str) and behavior == "allow"


def _kind(schema: dict[str, Any]) -> str | None:
    """Return a schema's type; None for a dict of fields, which may have one named "type"."""
    kind = schema.get("type")
    return kind if isinstance(kind, str) else None


def _inner(schema: dict[str, Any]) -> list[str]:
    """List the keys that may have schemas."""
    opaque = () if _kind(schema) is None else _OPAQUE
    return [key for key in schema if key not in opaque]


def _configured(schema: Any) -> Any:
    """Set our configuration in every model, dataclass and typed dict of a core schema."""
    if type(schema) is dict:
        copy = {**schema, **{key: _configured(schema[key]) for key in _inner(schema)}}
        if _kind(copy) in _CONFIGURED:
            copy["config"] = {**copy.get("config", {}), **_CONFIG}
        elif _kind(copy) == "bytes":
            copy.setdefault("serialization", _STANDARD_BASE64)
        return copy
    if type(schema) in (list, tuple):
        return type(schema)(_configured(part) for part in schema)
    return schema


def _with_base64(schema: Any) -> Any:
    if isinstance(schema, dict):
        schema = {key: _with_base64(part) for key, part in schema.items()}
        if schema.get("type") == "string" and schema.get("format") == "binary":
            del schema["format"]
            schema["contentEncoding"] = "base64"
        return schema
    return [_with_base64(part) for part in schema] if isinstance(schema, list) else schema


def _in_words(exc: ValidationError) -> str:
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{error['msg']}{_place(error['loc'])}" for error in errors[:_SHOWN_ERRORS]]
    if len(errors) > _SHOWN_ERRORS:
        said.append(f"and {len(errors) - _SHOWN_ERRORS} more")
    return "; ".join(said)


def _place(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return f" - at `${path}`" if path else ""
