"""Values for a function that is called by name."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.functions.by_name import OpenParts


def check(schema: dict[str, Any], value: Any, definitions: dict[str, Any] | None = None) -> None:
    OpenParts("item", schema, definitions or {}).check([value])


PAIR = {"type": "array", "prefixItems": [{"type": "integer"}, {}]}
RECORD = {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"title": "x"}, [1, {"a": None}]),
        ({"type": "array", "items": {"type": "integer"}}, (1, 2)),
        (PAIR, [1, [2]]),
        (RECORD, {"a": [1]}),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {}}]}, [1]),
    ],
)
def test_values_that_arrive_unchanged(schema: dict[str, Any], value: Any) -> None:
    check(schema, value)


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        ({"title": "x"}, (1,), ""),
        (PAIR, [1, (2,)], "[1]"),
        (RECORD, {"a": {1}}, "['a']"),
        ({"$ref": "#/$defs/R"}, {"a": (1,)}, "['a']"),
    ],
)
def test_values_that_would_change(schema: dict[str, Any], value: Any, path: str) -> None:
    with pytest.raises(TypeError) as refused:
        check(schema, value, {"R": RECORD})
    assert path in str(refused.value)


def test_nothing_is_known_of_the_function() -> None:
    assert OpenParts("item", {}, {}).is_unknown
    assert not OpenParts("item", PAIR, {}).is_unknown
