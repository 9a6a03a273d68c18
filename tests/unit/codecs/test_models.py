"""Codecs that use pydantic."""

from __future__ import annotations

import datetime as dt
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
