"""Check keyword parameters against the JSON Schema that workers announce.

Names are checked, and types as far as the schema's top level shows them. The worker, which decodes
them into the annotated types, has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetmap.wire.presence import FunctionInfo

_PYTHON: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


@dataclass(frozen=True)
class Misfit:
    """A wrong keyword parameter, with a message that also says what is accepted."""

    parameter: str
    message: str


def misfit(
    info: FunctionInfo, kwargs: Mapping[str, Any], *, names_only: bool = False
) -> Misfit | None:
    """Find a keyword parameter (as decoded JSON) that is certainly wrong, or None."""
    if not kwargs and not info.kwargs.get("required") and "$ref" not in info.kwargs:
        return None
    schema = _Schema(info.kwargs)
    if schema.properties is None:
        return None
    for name, value in kwargs.items():
        if name not in schema.properties:
            text = f"{info.name}() has no parameter {name!r}; {schema.accepted()}"
            return Misfit(name, text)
        property = schema.properties[name]
        if not names_only and not schema.fits(value, property):
            kind = schema.describe(property)
            text = f"{name!r} of {info.name}() must be {kind}; {schema.accepted()}"
            return Misfit(name, text)
    for name in schema.required:
        if name not in kwargs:
            return Misfit(name, f"{info.name}() needs the parameter {name!r}; {schema.accepted()}")
    return None


def open_parameters(info: FunctionInfo) -> set[str]:
    """Return the keyword parameters that have no annotation."""
    properties = _Schema(info.kwargs).properties or {}
    return {name for name, property in properties.items() if not set(property) - _REMARKS}


# Keys of a schema that do not restrict the type.
_REMARKS = {"default", "title", "description"}


class _Schema:
    """The announced document of a function's keyword parameters."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._definitions: dict[str, Any] = document.get("$defs", {})
        top = self._resolved(document)
        self.properties: dict[str, Any] | None = top.get("properties")
        self.required: list[str] = top.get("required", [])

    def accepted(self) -> str:
        parts = []
        for name, property in (self.properties or {}).items():
            kind = self.describe(property)
            about = [kind] if kind else []
            about += [] if name in self.required else ["optional"]
            parts.append(f"{name} ({', '.join(about)})" if about else name)
        return f"it takes {', '.join(parts)}" if parts else "it takes no keyword parameters"

    def fits(self, value: Any, property: Any) -> bool:
        """Return whether the value may fit; False only if it certainly does not."""
        schema = self._resolved(property)
        if "anyOf" in schema:
            return any(self.fits(value, branch) for branch in schema["anyOf"])
        if "enum" in schema:
            return value in schema["enum"]
        kinds = schema.get("type")
        if kinds is None:
            return True
        return any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))

    def describe(self, property: Any) -> str:
        """Describe a type; empty if the schema's top level does not show it."""
        schema = self._resolved(property)
        if "enum" in schema:
            return "one of " + ", ".join(map(repr, schema["enum"]))
        if "anyOf" in schema:
            kinds = [self.describe(branch) for branch in schema["anyOf"]]
            return " or ".join(kinds) if all(kinds) else ""
        kinds = schema.get("type", ())
        return kinds if isinstance(kinds, str) else " or ".join(kinds)

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """Follow a reference; return an empty schema for one that is just true or false."""
        if not isinstance(schema, dict):
            return {}
        name = schema.get("$ref", "").removeprefix("#/$defs/")
        found: dict[str, Any] = self._definitions.get(name, {}) if name else schema
        return found


def _is(value: Any, kind: str) -> bool:
    types = _PYTHON.get(kind)
    if types is None:
        return True
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))
