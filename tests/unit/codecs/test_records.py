"""Records of a subclass, which would lose what the annotated class has not."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from jetmap.codecs import Codec, Parameter, codec_for, kwargs_codec
from jetmap.codecs.records import record_classes, refuse_subclasses
from jetmap.wire.messages import Format

T = TypeVar("T")


@dataclasses.dataclass
class Base:
    x: int


@dataclasses.dataclass
class Derived(Base):
    y: int = 7


class Renamed(Base):
    """A subclass with the same fields."""


@dataclasses.dataclass
class Open:
    x: Any


@dataclasses.dataclass
class Wider(Open):
    y: int = 7


class Struct(msgspec.Struct):
    x: int


class WiderStruct(Struct):
    y: int = 7


@attrs.define
class Attrs:
    x: int


@attrs.define
class WiderAttrs(Attrs):
    y: int = 7


class Model(pydantic.BaseModel):
    x: int


class WiderModel(Model):
    y: int = 7


class OpenModel(pydantic.BaseModel):
    x: Any


class WiderOpenModel(OpenModel):
    y: int = 7


class Pair(NamedTuple):
    x: int


class PairWithMethods(Pair):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    x: T


CASES: list[tuple[Any, Any, Any]] = [
    (Base, Base(1), Derived(1)),
    (Open, Open(1), Wider(1)),
    (Struct, Struct(1), WiderStruct(1)),
    (Attrs, Attrs(1), WiderAttrs(1)),
    (Model, Model(x=1), WiderModel(x=1)),
    (OpenModel, OpenModel(x=1), WiderOpenModel(x=1)),
    (Pair, Pair(1), PairWithMethods(1)),
    (Base | None, Base(1), Derived(1)),
]


def format_of(codec: Codec) -> Format:
    return "python" if codec.is_open else "msgpack"


@pytest.mark.parametrize(("type", "exact", "wider"), CASES, ids=str)
def test_a_record_of_a_subclass_is_refused(type: Any, exact: Any, wider: Any) -> None:
    codec = codec_for(type)
    format = format_of(codec)
    said = f"{wider.__class__.__name__} would arrive as the annotated class"
    assert codec.decode_list(codec.encode_list([exact], format), format) == [exact]
    with pytest.raises(TypeError, match=said):
        codec.encode(wider, format)
    with pytest.raises(TypeError, match=said):
        codec.encode_list([exact, wider], format)
    with pytest.raises(TypeError, match=said):
        codec.encode_prepared(codec.prepare([exact, wider], format), format)
    assert codec.encode_list([wider], "json"), "callers in other languages may see more"


@pytest.mark.parametrize(("type", "exact", "wider"), CASES, ids=str)
def test_so_is_one_in_a_keyword_parameter(type: Any, exact: Any, wider: Any) -> None:
    codec = kwargs_codec("f", [Parameter("a", type), Parameter("b", int, True, 1)])
    format = format_of(codec)
    assert codec.decode(codec.encode({"a": exact}, format), format) == {"a": exact}
    with pytest.raises(TypeError, match="leave out the annotation"):
        codec.encode({"a": wider}, format)


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (Base, Renamed(1)),
        (Base | None, None),
        (Derived, Derived(1)),
        (Box[int], Box[int](x=1)),
        (Base | int, 7),
        (Any, Derived(1)),
    ],
)
def test_other_values_travel(type: Any, value: Any) -> None:
    codec = codec_for(type)
    codec.encode_list([value], format_of(codec))


def test_a_generic_model_is_its_parametrized_class() -> None:
    refuse_subclasses([Box[int](x=1)], record_classes(Box))


def test_the_records_of_a_type() -> None:
    none = type(None)
    for hint in (
        Base, Base | None, Annotated[Base, "x"], NewType("N", Base),
        Annotated[Base | int, "x"] | None,
    ):  # fmt: skip
        assert record_classes(hint) == {Base, none}
    assert record_classes(Base | Struct) == {Base, Struct, none}
    for hint in (int, Any, object, list[Base], dict[str, Base], tuple[Base], None, Base | Any):
        assert record_classes(hint) == frozenset()


def test_what_would_be_lost_is_named() -> None:
    with pytest.raises(TypeError, match="class Base and lose y; annotate the function with Deriv"):
        refuse_subclasses([Derived(1)], record_classes(Base))
