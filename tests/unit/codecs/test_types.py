"""Values come back as they were, for every type that a function may be annotated with."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import re
import subprocess
import sys
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NewType

import annotated_types
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from hypotheses import examples
from jetmap.codecs import Codec, Parameter, codec_for, kwargs_codec
from jetmap.codecs.types import has_datetimes
from jetmap.wire.messages import Format
from waiting import PATIENCE

FORMATS: list[Format] = ["json", "msgpack"]
both_formats = pytest.mark.parametrize("format", FORMATS)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    label: str | None = None


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


class Movie(TypedDict):
    title: str
    years: list[int]


class Pair(NamedTuple):
    left: int
    right: bytes


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Inner(pydantic.BaseModel):
    raw: bytes = b""
    at: dt.datetime
    ratio: float = 0.5


class Outer(pydantic.BaseModel):
    inner: Inner
    more: dict[int, Inner] = {}
    tags: set[str] = set()
    path: pathlib.Path = pathlib.Path("x")
    color: Color = Color.RED
    price: decimal.Decimal = decimal.Decimal("1.50")
    pair: tuple[int, bytes] = (1, b"\xff")
    default: bytes = pydantic.Field(default=b"\xfe", alias="Default")

    @pydantic.computed_field
    def total(self) -> int:
        return len(self.more)


class Node(pydantic.BaseModel):
    value: bytes
    children: list[Node] = []


class Awkward(pydantic.BaseModel):
    secret: pydantic.SecretStr
    url: pydantic.AnyUrl = pydantic.AnyUrl("http://example.test")
    type: bytes = b"\xff"
    default: bytes = b"\xfe"
    written: int = pydantic.Field(1, validation_alias="read", serialization_alias="shown")


class Bunch(pydantic.RootModel[list[Node]]):
    pass


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", val_json_bytes="hex", ser_json_bytes="hex")
    raw: bytes


class Sized(Strict):
    @pydantic.computed_field
    def size(self) -> int:
        return len(self.raw)


@pydantic.dataclasses.dataclass
class Circle:
    kind: Literal["circle"]
    radius: Annotated[float, pydantic.Field(gt=0)]


@dataclasses.dataclass
class Holder:
    strict: Strict
    count: int = 0


UserId = NewType("UserId", int)
Positive = Annotated[int, pydantic.Field(gt=0)]

small_ints = st.integers(-(2**63), 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
moments = st.datetimes() | st.datetimes(
    dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=st.just(dt.UTC)
)
models = st.builds(
    Outer,
    inner=st.builds(Inner, raw=st.binary(), at=moments, ratio=st.floats(-1e300, 1e300)),
    more=st.dictionaries(st.integers(0, 9), st.builds(Inner, raw=st.binary(), at=moments)),
    tags=st.sets(texts),
    color=st.sampled_from(Color),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    pair=st.tuples(small_ints, st.binary()),
    Default=st.binary(),
)
trees = st.recursive(
    st.builds(Tree, small_ints), lambda inner: st.builds(Tree, small_ints, st.lists(inner))
)

TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, st.none() | st.booleans() | small_ints | texts | st.lists(small_ints)),
    (int, small_ints),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, texts),
    (bytes, st.binary()),
    (bool, st.booleans()),
    (None, st.none()),
    (dt.datetime, moments),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (tuple[int, str], st.tuples(small_ints, texts)),
    (tuple[bytes, ...], st.lists(st.binary()).map(tuple)),
    (set[int], st.sets(small_ints)),
    (frozenset[str], st.frozensets(texts)),
    (dict[int, str], st.dictionaries(small_ints, texts)),
    (dict[str, bytes], st.dictionaries(texts, st.binary())),
    (list[list[float | None]], st.lists(st.lists(st.none() | st.floats(-1e9, 1e9)))),
    (int | str | None, st.none() | small_ints | texts),
    (UserId, small_ints),
    (Point, st.builds(Point, small_ints, st.none() | texts)),
    (Tree, trees),
    (Movie, st.fixed_dictionaries({"title": texts, "years": st.lists(small_ints)})),
    (Pair, st.builds(Pair, small_ints, st.binary())),
    (Cat | Dog, st.builds(Cat, small_ints) | st.builds(Dog, texts)),
    (Outer, models),
    (
        Node,
        st.builds(Node, value=st.binary(), children=st.lists(st.builds(Node, value=st.binary()))),
    ),
    (Bunch, st.builds(Bunch, st.lists(st.builds(Node, value=st.binary())))),
    (Strict, st.builds(Strict, raw=st.binary())),
    (Holder, st.builds(Holder, st.builds(Strict, raw=st.binary()), st.integers(0, 9))),
    (Circle | Inner, st.builds(Circle, st.just("circle"), st.floats(1, 9))),
    (Positive, st.integers(1, 2**64 - 1)),
    (Annotated[bytes, annotated_types.MinLen(1)], st.binary(min_size=1)),
    (pathlib.Path, texts.filter(lambda s: "\0" not in s).map(pathlib.Path)),
    (ipaddress.IPv4Address, st.ip_addresses(v=4)),
    (complex, st.complex_numbers(allow_nan=False, allow_infinity=False)),
]


def name_of(case: tuple[Any, object]) -> str:
    return str(getattr(case[0], "__name__", case[0]))


def same(codec: Codec, value: Any, format: Format) -> Any:
    return codec.decode(codec.encode(value, format), format)


@both_formats
@pytest.mark.parametrize("case", TYPES, ids=name_of)
def test_what_a_function_returns_is_what_comes_back(
    case: tuple[Any, st.SearchStrategy[Any]], format: Format
) -> None:
    type, values = case
    codec = codec_for(type)

    @examples(25)
    @given(st.lists(values, max_size=4))
    def check(values: list[Any]) -> None:
        back = codec.decode_list(codec.encode_list(values, format), format)
        assert back == values
        assert [x.__class__ for x in back] == [x.__class__ for x in values]
        for value in values:
            assert codec.decode(codec.encode(value, format), format) == value

    check()


@pytest.mark.parametrize("type", [float, Any, list[float], Inner, Annotated[float, "x"]])
def test_nan_and_infinity_travel_as_messagepack(type: Any) -> None:
    codec = codec_for(type)
    for number in (math.nan, math.inf, -math.inf):
        value: Any = [number] if type == list[float] else number
        if type is Inner:
            value = Inner(at=dt.datetime(2020, 1, 1), ratio=number)
        assert repr(same(codec, value, "msgpack")) == repr(value)


@pytest.mark.parametrize(
    "type", [float, Any, Point, Inner, Annotated[float, pydantic.Field(gt=-1)]]
)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_nan_and_infinity_are_refused_in_json(type: Any, number: float) -> None:
    value: Any = number
    if type is Point:
        value = Point(1, number)  # type: ignore[arg-type]
    if type is Inner:
        value = Inner.model_construct(at=dt.datetime(2020, 1, 1), ratio=number)
    codec = codec_for(type)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        codec.encode(value, "json")
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        codec.encode_list([value], "json")


@pytest.mark.parametrize("type", [int, Positive, list[int], Tree])
@pytest.mark.parametrize("wrong", [7.0, "7", True, None, b"7", {}])
@both_formats
def test_conversion_is_strict(type: Any, wrong: Any, format: Format) -> None:
    value = {list[int]: [wrong], Tree: {"value": wrong}}.get(type, wrong)
    data = codec_for(Any).encode_list([value], format)
    with pytest.raises(ValueError):
        codec_for(type).decode_list(data, format)


@pytest.mark.parametrize("type", [int, Positive, Outer])
@pytest.mark.parametrize("data", [b"", b"[", b"[1,]", b"\xc1", b"\x91", b"[1] 2", b"[\xff]"])
@both_formats
def test_malformed_bytes_are_value_errors(type: Any, data: bytes, format: Format) -> None:
    with pytest.raises(ValueError):
        codec_for(type).decode_list(data, format)


def test_models_say_what_does_not_fit_in_few_words() -> None:
    with pytest.raises(ValueError) as caught:
        codec_for(Outer).decode(b'{"inner": {"ratio": "1"}}', "json")
    assert str(caught.value) == (
        "Field required - at `$.inner.at`; Input should be a valid number - at `$.inner.ratio`"
    )


def test_json_bytes_are_base64_of_either_alphabet() -> None:
    for type in (bytes, Annotated[bytes, pydantic.Field(min_length=1)]):
        assert codec_for(type).decode(b'"+/8="', "json") == b"\xfb\xff"
    assert codec_for(bytes).encode(b"\xfb\xff", "json") == b'"+/8="'
    assert codec_for(Strict).decode(b'{"raw":"-_8="}', "json") == Strict(raw=b"\xfb\xff")


def test_json_shows_aliases_and_computed_fields() -> None:
    encoded = codec_for(Outer).encode(Outer(inner=Inner(at=dt.datetime(2020, 1, 1))), "json")
    shown = msgspec.json.decode(encoded)
    assert shown["Default"] == "/g=="
    assert shown["total"] == 0


def test_models_that_forbid_extras_travel_without_their_computed_fields() -> None:
    assert same(codec_for(Sized), Sized(raw=b"ab"), "msgpack") == Sized(raw=b"ab")


def test_between_python_processes_secrets_and_aliases_survive() -> None:
    value = Awkward(secret=pydantic.SecretStr("s"), type=b"\xfd", read=2)  # type: ignore[call-arg]
    assert same(codec_for(Awkward), value, "msgpack") == value
    by_alias = {"secret": "s", "read": 2, "type": b"\xfd"}
    encoded = codec_for(Any).encode(by_alias, "msgpack")
    assert codec_for(Awkward).decode(encoded, "msgpack") == value
    shown = msgspec.json.decode(codec_for(Awkward).encode(value, "json"))
    assert (shown["secret"], shown["shown"], shown["type"]) == ("**********", 2, "/Q==")


def test_nesting_too_deep_is_a_recursion_error() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RecursionError):
        codec_for(Any).encode(nested, "json")
    with pytest.raises(RecursionError):
        codec_for(Any).decode(b"[" * 100_000 + b"]" * 100_000, "json")


def test_integers_over_64_bits_travel_as_json_only() -> None:
    assert same(codec_for(int), 2**200, "json") == 2**200
    with pytest.raises(OverflowError):
        codec_for(int).encode(2**64, "msgpack")


@both_formats
def test_numpy_scalars_travel_as_python_numbers(format: Format) -> None:
    values = [np.int64(3), np.float32(0.5), np.float64(1.5), np.bool_(True), np.str_("a")]
    assert same(codec_for(Any), values, format) == [3, 0.5, 1.5, True, "a"]
    assert same(codec_for(Any), np.longdouble(0.25), format) == 0.25
    assert same(codec_for(Positive), np.int64(3), format) == 3
    assert same(codec_for(dict[int, int]), {np.int64(1): np.int8(2)}, format) == {1: 2}
    back = same(codec_for(np.float64), np.float64(1.5), format)
    assert isinstance(back, np.float64)
    for wrong in ("1", True, None):
        with pytest.raises(ValueError):
            codec_for(np.int64).decode(codec_for(Any).encode(wrong, format), format)
    with pytest.raises(ValueError):
        codec_for(np.int8).decode(codec_for(Any).encode(300, format), format)


@both_formats
def test_what_cannot_travel_is_a_type_error(format: Format) -> None:
    for value in (object(), 1j, {1, object()}, iter([])):
        with pytest.raises(TypeError, match="cannot travel"):
            codec_for(Any).encode(value, format)
    with pytest.raises(TypeError, match=r"numpy.ndarray cannot travel; convert it with .tolist"):
        codec_for(Any).encode(np.zeros(3), format)
    with pytest.raises(ValueError):
        codec_for(Any).encode("\ud800", format)


@both_formats
def test_subclasses_of_builtins_travel_as_these(format: Format) -> None:
    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "other"

    class Number(int):
        pass

    values = [Text("a"), Number(4), collections.Counter("aab"), collections.OrderedDict(x=1)]
    assert same(codec_for(Any), values, format) == ["a", 4, {"a": 2, "b": 1}, {"x": 1}]


def test_schemas() -> None:
    assert codec_for(Any).schema() == {}
    assert codec_for(int).schema() == {"type": "integer"}
    assert codec_for(bytes).schema() == {"type": "string", "contentEncoding": "base64"}
    assert codec_for(Positive).schema() == {"type": "integer", "exclusiveMinimum": 0}
    assert codec_for(Strict).schema()["properties"]["raw"]["contentEncoding"] == "base64"
    assert "size" not in codec_for(Sized).schema()["properties"]
    assert "size" in codec_for(Sized, output=True).schema()["properties"]
    assert codec_for(np.float64).schema()["type"] == "number"
    for type, _ in TYPES:
        msgspec.json.encode(codec_for(type).schema())


PLAIN = [Parameter("k", int), Parameter("scale", float, True, 2.5), Parameter("raw", Any, True)]
MODEL = [
    Parameter("k", Positive),
    Parameter("scale", float, True, 2.5),
    Parameter("raw", Any, True),
]


@pytest.mark.parametrize("parameters", [PLAIN, MODEL], ids=["msgspec", "pydantic"])
@both_formats
def test_kwargs(parameters: list[Parameter], format: Format) -> None:
    codec = kwargs_codec("f", parameters)
    assert same(codec, {"k": 1}, format) == {"k": 1}
    everything = {"k": 1, "scale": 0.5, "raw": [None]}
    assert same(codec, everything, format) == everything
    assert codec.decode_list(codec.encode_list([{"k": 3}], format), format) == [{"k": 3}]
    wrongs: list[Any] = [{}, {"k": "1"}, {"k": 1, "scal": 2.0}, [1], None]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            codec.decode(codec_for(Any).encode(wrong, format), format)
    for wrong in wrongs[0], wrongs[2]:
        with pytest.raises(TypeError, match=r"f\(\) (misses|got an unexpected)"):
            codec.encode(wrong, format)
    with pytest.raises(ValueError):
        codec.decode(b"", format)
    assert kwargs_codec("f", parameters[1:]).decode(b"", format) == {}
    schema = codec.schema()
    assert schema["required"] == ["k"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["scale"]["default"] == 2.5


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


class Bits(enum.Flag):
    LOW = 1
    HIGH = 2


REFUSED = "refused"
STANDARD: list[tuple[Any, Any, str]] = [
    (bytearray, bytearray(b"x"), ""),
    (memoryview, memoryview(b"x"), ""),
    (frozenset[int], frozenset({1}), ""),
    (set[tuple[int, str]], {(1, "a")}, ""),
    (decimal.Decimal, decimal.Decimal("1E+3"), ""),
    (decimal.Decimal, decimal.Decimal("-0"), ""),
    (float, -0.0, ""),
    (complex, 1j, ""),
    (fractions.Fraction, fractions.Fraction(1, 3), ""),
    (Access, Access.READ | Access.WRITE, ""),
    (Access, Access(8), ""),
    (Bits, Bits.LOW | Bits.HIGH, ""),
    (Bits, Bits(0), ""),
    (Pair, Pair(1, b"x"), ""),
    (dt.time, dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=2))), ""),
    (dt.date, dt.date.max, ""),
    (dt.timedelta, dt.timedelta.min, ""),
    (ipaddress.IPv4Address, ipaddress.ip_address("10.0.0.1"), ""),
    (ipaddress.IPv6Interface, ipaddress.ip_interface("::1/64"), ""),
    (pathlib.Path, pathlib.Path("a/../b"), ""),
    (pathlib.Path, pathlib.PureWindowsPath("a"), REFUSED),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("a"), REFUSED),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2), ""),
    (collections.Counter[str], collections.Counter("aab"), ""),
    (collections.deque[int], collections.deque([1]), ""),
    (collections.deque[int], collections.deque([1], 3), REFUSED),
    (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1]), ""),
    (collections.defaultdict[str, int], collections.defaultdict(lambda: 5), REFUSED),
    (re.Pattern, re.compile("a"), ""),
    (re.Pattern, re.compile("(?is)a"), ""),
    (re.Pattern, re.compile("a", re.I), REFUSED),
    (re.Pattern[bytes], re.compile(b"a"), REFUSED),
    (array.array, array.array("d", [1.5]), REFUSED),
    (range, range(3), REFUSED),
    (slice, slice(1), REFUSED),
    (dt.timezone, dt.UTC, REFUSED),
    (collections.defaultdict, collections.defaultdict(list), REFUSED),
    (collections.ChainMap[str, int], collections.ChainMap(), REFUSED),
]


@pytest.mark.parametrize(("type", "value", "expected"), STANDARD)
def test_annotated_standard_types_arrive_the_same_or_are_refused(
    type: Any, value: Any, expected: str
) -> None:
    def travel() -> Any:
        codec = codec_for(type)
        return same(codec, value, "python" if codec.is_open else "msgpack")

    if expected == REFUSED:
        with pytest.raises((TypeError, ValueError)):
            travel()
        return
    back = travel()
    assert (back.__class__, back) == (value.__class__, value)
    if not isinstance(value, memoryview):
        assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "type",
    [
        dt.datetime, list[dt.datetime | None], dict[dt.datetime, int], tuple[int, dt.datetime],
        Annotated[dt.datetime, "x"], NewType("At", dt.datetime),
        dataclasses.make_dataclass("D", [("at", dt.datetime)]),
        msgspec.defstruct("S", [("at", list[dt.datetime])]),
        NamedTuple("N", [("at", dt.datetime)]), TypedDict("T", {"at": dt.datetime}),
    ],
    ids=str,
)  # fmt: skip
def test_datetimes_are_found_in_types(type: Any) -> None:
    assert has_datetimes(type)


@pytest.mark.parametrize(
    "type", [int, dt.date, dt.time, list[dt.timedelta], Tree, Movie, Any, None]
)
def test_types_without_datetimes(type: Any) -> None:
    assert not has_datetimes(type)


def test_pydantic_is_imported_only_for_types_that_need_it() -> None:
    code = (
        "import sys, typing, dataclasses, datetime\n"
        "from jetmap.codecs import codec_for\n"
        "@dataclasses.dataclass\n"
        "class D: x: datetime.datetime\n"
        "for t in (int, typing.Any, D, list[D], dict[str, set[int]]): codec_for(t).schema()\n"
        "assert 'pydantic' not in sys.modules, 'pydantic'\n"
        "assert 'asyncio' not in sys.modules, 'asyncio'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
