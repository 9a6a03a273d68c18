"""Keyword parameters with constants among them, as chunks carry them."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.codecs import Parameter, kwargs_codec
from jetmap.wire.constants import Constant, digest_of, found_in, pack_kwargs, unpack_kwargs
from jetmap.wire.messages import EMPTY_BYTES

TABLE = Constant("d1", 700_000)


def field(kwargs: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(kwargs))


@pytest.mark.parametrize("size", [0, 200, 60_000, 70_000])
def test_constants_are_found_beside_other_parameters(size: int) -> None:
    packed = pack_kwargs(b"r" * size, {"table": TABLE})
    assert unpack_kwargs(packed).rest == b"r" * size and unpack_kwargs(packed).constants == {
        "table": TABLE
    }
    assert found_in(field(packed)) == [TABLE]
    assert found_in(field(b"r" * size)) == [] and unpack_kwargs(b"r" * size).constants == {}


def test_no_parameters_take_two_bytes() -> None:
    assert len(field(b"")) == EMPTY_BYTES and found_in(field(b"")) == []


@pytest.mark.parametrize("format", ["json", "msgpack", "python"])
def test_workers_that_do_not_know_constants_refuse_them(format: str) -> None:
    optional = kwargs_codec("f", [Parameter("table", int, optional=True, default=1)])
    with pytest.raises(ValueError, match="malformed"):
        optional.decode(pack_kwargs(b"", {"table": TABLE}), format)  # type: ignore[arg-type]


def test_equal_content_has_one_digest() -> None:
    assert digest_of(memoryview(b"one")) == digest_of(memoryview(bytearray(b"one")))
    assert digest_of(memoryview(b"one")) != digest_of(memoryview(b"two"))
