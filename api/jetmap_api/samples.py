"""Make sample values from JSON Schema, which the interactive documentation offers to send."""

from __future__ import annotations

import math
from typing import Any

Schema = dict[str, Any]

DEEPEST = 8
_TEXTS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "uuid": "123e4567-e89b-42d3-a456-42661417400{}",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "decimal": "1.5",
}
_WORDS = ("text", "another", "third")


def sample(schema: Schema | bool, definitions: Schema, variant: int = 0, depth: int = 0) -> Any:
    """Make a value that fits, as far as the schema can be read. variant: 0 to 2."""
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    for keyword in ("examples", "example", "const", "enum"):
        if keyword in schema:
            given = schema[keyword]
            many = keyword in ("examples", "enum") and isinstance(given, list) and given
            return given[variant % len(given)] if many else given
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return sample(definitions.get(name, {}), definitions, variant, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            choices = [c for c in schema[keyword] if c.get("type") != "null"] or [{"type": "null"}]
            return sample(_shallowest(choices, definitions, depth), definitions, variant, depth + 1)
    if "allOf" in schema:
        merged: Schema = {k: v for k, v in schema.items() if k != "allOf"}
        for part in schema["allOf"]:
            merged = {**_resolved(part, definitions), **merged}
        return sample(merged, definitions, variant, depth + 1)
    return _of_type(schema, definitions, variant, depth)


def _of_type(schema: Schema, definitions: Schema, variant: int, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "integer":
        return _integer(schema, variant)
    if kind == "number":
        return _number(schema, variant)
    if kind == "string":
        return _text(schema, variant)
    if kind == "boolean":
        return variant % 2 == 0
    if kind == "array" or "prefixItems" in schema:
        return _array(schema, definitions, variant, depth)
    if kind == "object" or "properties" in schema:
        return _object(schema, definitions, variant, depth)
    return None if kind == "null" else variant + 1


def _integer(schema: Schema, variant: int) -> int:
    low, high = _bounds(schema, 1)
    step = int(schema.get("multipleOf", 1)) or 1
    if low is not None:
        return (math.ceil(low / step) + _within(variant, low, high, step)) * step
    if high is not None:
        return (math.floor(high / step) - variant) * step
    return (7 + variant) * step


def _number(schema: Schema, variant: int) -> float:
    low, high = _bounds(schema, 1e-9)
    if low is not None and high is not None:
        return low + (high - low) * (variant + 1) / 4
    if low is not None:
        return math.floor(low) + 1.5 + variant
    return math.ceil(high) - 1.5 - variant if high is not None else 1.5 + variant


def _bounds(schema: Schema, beyond: float) -> tuple[float | None, float | None]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + beyond
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - beyond
    return low, high


def _within(variant: int, low: float, high: float | None, step: int) -> int:
    return variant if high is None or math.ceil(low / step) * step + variant * step <= high else 0


def _text(schema: Schema, variant: int) -> str:
    if schema.get("contentEncoding") == "base64" or schema.get("format") in ("binary", "base64"):
        return "aGVsbG8="
    text = _TEXTS.get(str(schema.get("format")), _WORDS[variant % len(_WORDS)]).format(variant)
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _array(schema: Schema, definitions: Schema, variant: int, depth: int) -> list[Any]:
    found = [
        sample(item, definitions, variant, depth + 1) for item in schema.get("prefixItems", [])
    ]
    items = schema.get("items", not found)
    least = int(schema.get("minItems", 0))
    most = int(schema.get("maxItems", max(least, 2)))
    if items is not False and depth < DEEPEST - 2:
        while len(found) < min(max(least, 2), most):
            found.append(sample(items or {}, definitions, variant + len(found), depth + 1))
    return found


def _object(schema: Schema, definitions: Schema, variant: int, depth: int) -> dict[str, Any]:
    required = schema.get("required", [])
    found = {
        name: part["default"]
        if isinstance(part, dict) and "default" in part
        else sample(part, definitions, variant, depth + 1)
        for name, part in schema.get("properties", {}).items()
        if name in required or depth < 3
    }
    more = schema.get("additionalProperties")
    if not found and isinstance(more, dict):
        keys = schema.get("propertyNames", {"type": "string"})
        found[str(sample(keys, definitions, variant, depth + 1))] = sample(
            more, definitions, variant, depth + 1
        )
    return found


def _shallowest(choices: list[Schema], definitions: Schema, depth: int) -> Schema:
    """Choose an alternative without references, at which recursive types end."""
    if depth > 3:
        return next(
            (c for c in choices if "$ref" not in c and c.get("type") != "array"), choices[0]
        )
    return choices[0]


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    if "$ref" in schema:
        found: Schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        return found
    return schema
