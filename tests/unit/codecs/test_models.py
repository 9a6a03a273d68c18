"""Codecs that use pydantic."""

from __future__ import annotations

import collections
import datetime as dt
import re
from typing import Annotated, Any

import annotated_types
import pydantic
import pytest

from jetmap.codecs.models import MisfitError, ModelCodec

Positive = Annotated[int, annotated_types.Gt(0)]


class Model(pydantic.BaseModel):
    when: dt.datetime
    data: bytes = b""
    pair: tuple[int, str] = (1, "a")


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_models_travel_strictly(format: Any) -> None:
    codec = ModelCodec(Model)
    value = Model(when=dt.datetime(2026, 1, 2), data=b"\xff", pair=(2, "b"))
    assert codec.decode_list(codec.encode_list([value], format), format) == [value]
    with pytest.raises(MisfitError, match="when"):
        codec.decode(b'{"when": 7.5, "pair": ["1", "a"]}', "json")


def test_constraints_are_checked_and_named() -> None:
    codec = ModelCodec(Positive)
    assert codec.decode(b"7", "json") == 7
    with pytest.raises(MisfitError, match="greater than 0"):
        codec.decode(b"-7", "json")
    assert codec.schema() == {"exclusiveMinimum": 0, "type": "integer"}


def test_a_long_list_of_errors_is_cut() -> None:
    codec = ModelCodec(list[Positive])
    with pytest.raises(MisfitError) as refused:
        codec.decode(b"[0, 0, 0, 0, 0, 0]", "json")
    assert len(str(refused.value)) < 300


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: int = 1


class Hidden(pydantic.BaseModel):
    x: int
    y: int = pydantic.Field(default=0, exclude=True)


@pydantic.dataclasses.dataclass
class Queue:
    of: collections.deque[int]


LOST: list[tuple[Any, Any, Any]] = [
    (re.Pattern, re.compile("(?i)a"), re.compile("a", re.I)),
    (list[re.Pattern[str]], [re.compile("a")], [re.compile("a", re.M)]),
    (collections.deque[int], collections.deque([1]), collections.deque([1], 3)),
    (Queue, Queue(collections.deque([1])), Queue(collections.deque([1], 3))),
    (
        collections.defaultdict[str, int],
        collections.defaultdict(int, a=1),
        collections.defaultdict(lambda: 5, a=1),
    ),
    (Extra, Extra(t=[1]), Extra(t=(1,))),  # type: ignore[call-arg]
    (Hidden, Hidden(x=1), Hidden(x=1, y=2)),
]


@pytest.mark.parametrize(("type", "kept", "lost"), LOST)
def test_what_pydantic_does_not_write_is_refused(type: Any, kept: Any, lost: Any) -> None:
    codec = ModelCodec(type)
    assert codec.is_open
    for value in (kept, lost):
        # Callers in other languages get what pydantic writes.
        assert codec.decode(codec.encode(value, "json"), "json") is not None
    assert codec.decode_list(codec.encode_list([kept], "python"), "python") == [kept]
    with pytest.raises(TypeError, match=r"would arrive changed|cannot travel in a field"):
        codec.encode(lost, "python")
    with pytest.raises(TypeError):
        codec.prepare([kept, lost], "python")


def test_other_models_are_not_compared() -> None:
    class Names(pydantic.BaseModel):
        config: int = 1
        serialization_exclude: bool = True
        extras_behavior: str = "allow"

    for type in (Names, Model, Positive, collections.OrderedDict[str, int]):
        assert not ModelCodec(type).is_open
