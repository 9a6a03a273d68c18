"""Aware datetimes keep their wall clock and offset wherever they are annotated."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pandas as pd
import pydantic
import pytest
from typing_extensions import TypedDict

from jetmap.codecs import Parameter, codec_for, kwargs_codec
from jetmap.codecs.zones import encode_with_offsets
from jetmap.wire.messages import Format

TOKYO = dt.timezone(dt.timedelta(hours=9))
BERLIN = ZoneInfo("Europe/Berlin")
MOMENT = dt.datetime(2026, 7, 1, 2, 30, 5, 7, tzinfo=TOKYO)


@dataclasses.dataclass
class Visit:
    at: dt.datetime
    raw: bytes = b"\xd6\xff"
    open: Any = None


class Reading(msgspec.Struct, tag=True, rename="camel"):
    taken_at: dt.datetime
    raw: msgspec.Raw = msgspec.Raw(b"\xc0")
    left_out: int | msgspec.UnsetType = msgspec.UNSET


class Stop(NamedTuple):
    at: dt.datetime
    names: set[str]


class Row(TypedDict):
    at: dt.datetime


class Model(pydantic.BaseModel):
    at: dt.datetime
    others: list[dt.datetime] = []


CASES: list[tuple[Any, Any]] = [
    (dt.datetime, MOMENT),
    (dt.datetime, MOMENT.replace(tzinfo=None)),
    (dt.datetime, MOMENT.replace(tzinfo=dt.UTC)),
    (dt.datetime, dt.datetime(1, 1, 1, tzinfo=TOKYO)),
    (dt.datetime, dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5)))),
    (list[dt.datetime], [MOMENT]),
    (dict[dt.datetime, int], {MOMENT: 1}),
    (dict[tuple[int, dt.datetime], int], {(1, MOMENT): 1}),
    (int | dt.datetime | None, MOMENT),
    (set[dt.datetime], {MOMENT}),
    (Visit, Visit(MOMENT)),
    (Visit, Visit(MOMENT, open=(MOMENT, {1}))),
    (Reading | None, Reading(MOMENT)),
    (Stop, Stop(MOMENT, {"a"})),
    (list[Row], [{"at": MOMENT}]),
    (Model, Model(at=MOMENT, others=[MOMENT])),
    (Annotated[dt.datetime, pydantic.Field(gt=dt.datetime(2000, 1, 1, tzinfo=dt.UTC))], MOMENT),
]


@pytest.mark.parametrize(("type", "value"), CASES)
def test_the_offset_arrives_in_every_type(type: Any, value: Any) -> None:
    codec = codec_for(type)
    format: Format = "python" if codec.is_open else "msgpack"
    back = codec.decode_list(codec.encode_list([value, value], format), format)
    back.append(codec.decode(codec.encode(value, format), format))
    for each in back:
        if not isinstance(value, Reading):  # Its encoded part has no equality.
            assert each == value
        # Moments are equal in any zone; pydantic's name for a zone is another one than Python's.
        shown = repr(each).replace("TzInfo(32400)", repr(TOKYO))
        assert shown.partition("msgspec.Raw")[0] == repr(value).partition("msgspec.Raw")[0]


def test_a_zone_arrives_as_its_offset_at_that_moment() -> None:
    codec = codec_for(dt.datetime)
    for fold, hours in ((0, 2), (1, 1)):
        sent = dt.datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=BERLIN)
        back = codec.decode(codec.encode(sent, "msgpack"), "msgpack")
        zone = dt.timezone(dt.timedelta(hours=hours))
        assert repr(back) == repr(sent.replace(fold=0, tzinfo=zone))


@pytest.mark.parametrize("type", [dt.datetime, list[dt.datetime], Any])
def test_an_offset_with_seconds_is_refused(type: Any) -> None:
    old = dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(minutes=19, seconds=32)))
    with pytest.raises(TypeError, match=r"0:19:32 from UTC.*leave out the annotation"):
        codec_for(type).encode([old], "msgpack")


def test_keyword_parameters_keep_it() -> None:
    for hint in (dt.datetime, Model):
        codec = kwargs_codec("f", [Parameter("at", hint), Parameter("n", int, True, 1)])
        value = MOMENT if hint is dt.datetime else Model(at=MOMENT)
        (back,) = codec.decode(codec.encode({"at": value}, "msgpack"), "msgpack").values()
        assert str(getattr(back, "at", back)) == str(MOMENT)


def test_subclasses_keep_it() -> None:
    codec = codec_for(dt.datetime)
    back = codec.decode(codec.encode(pd.Timestamp(MOMENT), "msgpack"), "msgpack")
    assert repr(back) == repr(MOMENT)


def test_builtins_called_by_name_keep_it() -> None:
    encoded = codec_for(Any).encode(collections.OrderedDict(at=MOMENT, n=[1, b"\xff"]), "msgpack")
    assert msgspec.msgpack.decode(encoded) == {"at": MOMENT.isoformat(), "n": [1, b"\xff"]}


def test_other_values_are_encoded_as_ever() -> None:
    encoder = msgspec.msgpack.Encoder()
    values: list[Any] = [
        {"raw": b"\xd6\xff\xd7\xff\xc7\x0c\xff", 1: (None, 1.5), "s": {1}},
        [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1)],
        [dt.date(2026, 1, 1), dt.time(1), dt.timedelta(1), msgspec.msgpack.Ext(5, b"\xd6\xff")],
        (bytearray(b"\xd6\xff"), memoryview(b"\xd7\xff"), Row(at=dt.datetime(1, 1, 1))),
    ]
    for value in values:
        assert encode_with_offsets(value, encoder) == encoder.encode(value)
    with pytest.raises(OverflowError):
        encode_with_offsets(2**64, encoder)


def test_a_moment_outside_utc_in_another_type_does_not_count_as_an_integer() -> None:
    codec = codec_for(int)
    early = dt.datetime(1, 1, 1, tzinfo=TOKYO)
    with pytest.raises(ValueError, match="Expected `int`, got `str`"):
        codec.decode(codec.encode(early, "msgpack"), "msgpack")
