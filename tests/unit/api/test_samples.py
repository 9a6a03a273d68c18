"""Samples fit their schemas, and recursive schemas end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from jetmap_api.samples import sample


@dataclass
class Tree:
    value: int
    children: list[Tree]


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str
    friend: Cat | Dog | None


@pytest.mark.parametrize(
    "kind",
    [
        *(int, float, str, bytes, bool, None, Any, date, UUID, list[int], set[str]),
        *(tuple[int, str, float], dict[str, float], int | None, str | list[int]),
        Literal["a", "b"],
        Annotated[int, msgspec.Meta(ge=10, multiple_of=7)],
        Annotated[int, msgspec.Meta(le=-3)],
        Annotated[float, msgspec.Meta(gt=0, lt=1)],
        Annotated[float, msgspec.Meta(le=0)],
        Annotated[str, msgspec.Meta(min_length=30)],
        Annotated[str, msgspec.Meta(max_length=2)],
        Annotated[list[int], msgspec.Meta(min_length=4)],
        Annotated[list[int], msgspec.Meta(max_length=1)],
        Tree,
        Cat | Dog,
    ],
)
def test_samples_fit_their_schema(kind: Any) -> None:
    schema = msgspec.json.schema(kind)
    for variant in range(3):
        value = sample(schema, schema.get("$defs", {}), variant)
        msgspec.json.decode(msgspec.json.encode(value), type=kind)


def test_bounds_and_choices_are_kept() -> None:
    for variant in range(3):
        assert 5 <= sample({"type": "integer", "minimum": 5, "maximum": 6}, {}, variant) <= 6
        assert sample({"enum": ["a", "b"]}, {}, variant) in ("a", "b")
        assert len(sample({"type": "string", "minLength": 9}, {}, variant)) >= 9
    assert sample({"const": 3}, {}) == 3 and sample({"type": ["null", "integer"]}, {}) is not None
    assert sample(True, {}) is None
    assert sample({"examples": [7, 8]}, {}, 1) == 8


def test_variants_differ() -> None:
    assert len({sample({"type": "integer"}, {}, variant) for variant in range(3)}) == 3


def test_a_recursive_type_ends() -> None:
    tree = {
        "type": "object",
        "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Tree"}]}},
    }
    assert isinstance(sample({"$ref": "#/$defs/Tree"}, {"Tree": tree}), dict)
