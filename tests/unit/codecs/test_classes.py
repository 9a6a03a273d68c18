"""Instances of users' classes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest

from jetmap.codecs.walk import class_kind, decode_plainly, encode_walked, restore, tag

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=restore).decode


class Color(enum.Enum):
    RED = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclass
class Point:
    x: int
    y: Any = None

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("constructors must not run")


class Pair(NamedTuple):
    a: int
    b: Any


class Struct(msgspec.Struct):
    n: int


class Model(pydantic.BaseModel):
    n: int


class Name(str):
    pass


def broken_point() -> Point:
    point = Point(1)
    point.x = -1
    return point


@pytest.mark.parametrize(
    "value",
    [
        Color.RED,
        Flags.A | Flags.B,
        Point(1, (2,)),
        broken_point(),
        Pair(1, {2}),
        Struct(1),
        Model(n=1),
        Name("x"),
    ],
    ids=repr,
)
def test_instances_keep_their_class_and_state(value: Any) -> None:
    found = _decode(encode_walked(tag(value), _encode))
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, 1),
        (Point(1), {"x": 1, "y": None}),
        (Struct(1), {"n": 1}),
        (Model(n=1), {"n": 1}),
        (Name("x"), "x"),
    ],
    ids=repr,
)
def test_other_languages_get_plain_values(value: Any, plain: Any) -> None:
    assert decode_plainly(encode_walked(tag(value), _encode)) == plain


def test_classes_that_the_other_side_cannot_find() -> None:
    @dataclass
    class Local:
        x: int

    with pytest.raises(TypeError, match="Local"):
        class_kind(Local(1))
    assert class_kind(object()) is None


def test_a_class_that_is_not_imported_here() -> None:
    encoded = encode_walked(tag(Point(1)), _encode)
    with pytest.raises(ValueError):
        _decode(encoded.replace(b"Point", b"Joint"))
