"""The choice of a codec for a type."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from jetmap.codecs import Parameter, codec_for, kwargs_codec
from jetmap.codecs.native import NativeCodec, NativeKwargs


class Model(pydantic.BaseModel):
    n: int


class Alien:
    """A class that no codec knows."""


def test_msgspec_decodes_what_it_knows_and_pydantic_the_rest() -> None:
    assert isinstance(codec_for(list[int]), NativeCodec)
    assert not isinstance(codec_for(list[Model]), NativeCodec)
    parameters = [Parameter("n", int)]
    assert isinstance(kwargs_codec("f", parameters), NativeKwargs)
    assert not isinstance(kwargs_codec("f", [Parameter("m", Model)]), NativeKwargs)


@pytest.mark.parametrize("type", [Alien, list[Alien], str | bytes, Alien | int, dict[str, Alien]])
def test_types_that_nothing_decodes(type: Any) -> None:
    with pytest.raises(TypeError, match=r"Alien|str"):
        codec_for(type)
