"""Samples fit their schemas, and recursive schemas end."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap_api.samples import sample


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, int),
        ({"type": "number"}, (int, float)),
        ({"type": "string"}, str),
        ({"type": "boolean"}, bool),
        ({"type": "array", "items": {"type": "integer"}}, list),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, dict),
        ({"type": ["null", "integer"]}, int),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, str),
        ({"type": "null"}, type(None)),
        (True, type(None)),
    ],
)
def test_a_sample_has_its_type(schema: Any, kind: Any) -> None:
    assert isinstance(sample(schema, {}), kind)


def test_bounds_and_choices_are_kept() -> None:
    for variant in range(3):
        assert 5 <= sample({"type": "integer", "minimum": 5, "maximum": 6}, {}, variant) <= 6
        assert sample({"enum": ["a", "b"]}, {}, variant) in ("a", "b")
        assert len(sample({"type": "string", "minLength": 9}, {}, variant)) >= 9
    assert sample({"const": 3}, {}) == 3
    assert sample({"examples": [7, 8]}, {}, 1) == 8


def test_variants_differ() -> None:
    assert len({sample({"type": "integer"}, {}, variant) for variant in range(3)}) == 3


def test_a_recursive_type_ends() -> None:
    tree = {
        "type": "object",
        "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Tree"}]}},
    }
    assert isinstance(sample({"$ref": "#/$defs/Tree"}, {"Tree": tree}), dict)
