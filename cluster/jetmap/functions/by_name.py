"""Values for a function that is called by name, of whose annotations only a schema is known.

What has an annotation decodes from plain MessagePack by it. What has none would arrive as
MessagePack has it, a tuple as a list; such a value is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetmap.codecs.untyped import SCALARS, is_plain

_REMARKS = {"default", "title", "description"}  # Keys of a schema that say nothing of the type.
_ARRAYS = (list, tuple, set, frozenset)


class OpenParts:
    """The parts of a schema that have no annotation.

    Args:
        what: Name of the value in errors.
        schema: JSON Schema document; empty if nothing is known.
        definitions: The ``$defs`` that the schema refers to.
    """

    def __init__(
        self, what: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]
    ) -> None:
        self._what = what
        self._schema = schema
        self._definitions = definitions

    @property
    def is_unknown(self) -> bool:
        """Return whether nothing is known of the function yet."""
        return not self._schema

    def check(self, values: list[Any]) -> None:
        """Raise TypeError for a value that would change on its way."""
        if is_plain(values):
            return
        for value in values:
            self._check(value, self._schema, "")

    def _check(self, value: Any, schema: Any, path: str) -> None:
        schema = self._resolved(schema)
        if not schema.keys() - _REMARKS:
            if not is_plain([value]):
                raise TypeError(self._refusal(value, path))
            return
        if type(value) in SCALARS:
            return
        for branch in schema.get("anyOf") or schema.get("oneOf") or ():
            kind = self._resolved(branch).get("type")
            if kind is None or isinstance(value, _ARRAYS) == (kind == "array"):
                self._check(value, branch, path)
        if schema.get("type") == "array":
            if not isinstance(value, _ARRAYS):  # Its parts are unknown.
                raise TypeError(self._refusal(value, path))
            first = schema.get("prefixItems", [])
            parts: Any = value
            for index, part in enumerate(parts):
                rest = schema.get("items", {})
                self._check(part, first[index] if index < len(first) else rest, f"{path}[{index}]")
        elif schema.get("type") == "object":
            known = schema.get("properties", {})
            more = schema.get("additionalProperties", {})
            for name, part in _members(value, known).items():
                self._check(part, known.get(name, more), f"{path}[{name!r}]")

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """Follow a reference; return an empty schema for one that is just true or false."""
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            found: Mapping[str, Any] = self._definitions.get(schema["$ref"].split("/")[-1], {})
            return found
        return schema

    def _refusal(self, value: Any, path: str) -> str:
        where = f" - at `${path}`" if path else ""
        kind = type(value).__qualname__
        if hasattr(value, "travel_hint"):
            return f"{self._what} holds a {kind}{where}, which cannot travel; {value.travel_hint}"
        return (
            f"{self._what} holds a value of type {kind} or within it, where the function has no "
            f"annotation or is not announced yet{where}: called by name, it would arrive as "
            "another type; pass the function instead of its name, annotate that part, or send "
            "JSON types"
        )


def _members(value: Any, known: Mapping[str, Any]) -> Mapping[Any, Any]:
    if isinstance(value, dict):
        return value
    return {name: getattr(value, name) for name in known if hasattr(value, name)}
