"""Values without an annotation: tagged on the way out, restored on arrival."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from typing import Any

import msgspec
import pytest

from jetmap.codecs.walk import (
    Ext,
    cannot_travel,
    decode_plainly,
    encode_walked,
    restore,
    tag,
    tag_outermost,
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=restore).decode


def travelled(value: Any) -> Any:
    return _decode(encode_walked(tag_outermost(value), _encode))


def plainly(value: Any) -> Any:
    return decode_plainly(encode_walked(tag_outermost(value), _encode))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, "a", b"b", 1.5, {"c": [True]}],
        (1, (2, [3])),
        {1: 2, (1, 2): {3}},
        frozenset([1]),
        2**100,
        -(2**70),
        "\udcff",
        bytearray(b"x"),
        1 + 2j,
        range(1, 9, 2),
        slice(1, None, 2),
        fractions.Fraction(1, 3),
        decimal.Decimal("1.10"),
        uuid.UUID(int=7),
        dt.date(2026, 1, 2),
        dt.time(1, 2, 3, fold=1),
        dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1), "here")),
        dt.datetime(2026, 1, 2, 3, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.timedelta(microseconds=-1),
        collections.deque([1, 2], maxlen=3),
        collections.OrderedDict([(1, 2)]),
        collections.Counter("aab"),
        array.array("d", [1.5]),
        pathlib.PurePosixPath("/a/b"),
        ipaddress.ip_network("10.0.0.0/8"),
    ],
    ids=repr,
)
def test_python_callers_get_back_what_was_sent(value: Any) -> None:
    found = travelled([value])[0]
    assert (type(found), found) == (type(value), value)


def test_a_defaultdict_keeps_its_factory() -> None:
    found = travelled(collections.defaultdict(list, {1: [2]}))
    assert found["new"] == [] and found[1] == [2]
    with pytest.raises(TypeError, match="default_factory is not a builtin type"):
        tag(collections.defaultdict(lambda: 1))


@pytest.mark.parametrize(
    ("value", "plain"),
    [((1, 2), (1, 2)), (pathlib.PurePosixPath("/a"), "/a"), ({1: 2}, {1: 2})],
)
def test_other_languages_get_plain_values(value: Any, plain: Any) -> None:
    assert plainly(value) == plain


def test_scalars_are_not_copied() -> None:
    values = [1, "a", None]
    assert tag(values) is values


def test_values_that_cannot_travel() -> None:
    with pytest.raises(TypeError, match="a value of type object cannot travel"):
        tag([object()])
    assert "send builtins" in cannot_travel(object())


def test_extensions_of_others() -> None:
    with pytest.raises(ValueError, match="unknown extension type 5"):
        _decode(_encode(Ext(5, b"x")))
    with pytest.raises(ValueError, match="the kind 'tomorrow'"):
        _decode(_encode(Ext(74, _encode(["tomorrow", 1]))))


def test_deep_plain_values_travel() -> None:
    value: Any = []
    for _ in range(400):
        value = [value]
    assert travelled(value) == value
