"""Functions without annotations, or with some, and what travels through them."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pydantic
from typing_extensions import TypedDict

from alike import describe
from jetmap import task


class Color(enum.Enum):
    RED = ("r", 1)
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: int
    right: Any = None


Dot = collections.namedtuple("Dot", "x y")


@dataclasses.dataclass
class Box:
    size: int
    inside: Any = None
    more: list[Any] = dataclasses.field(default_factory=list)


class Unloadable:
    """Raises where it is loaded, not where it is pickled; above 8, what would end a program."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __setstate__(self, state: dict[str, int]) -> None:
        raise (OSError if state["n"] < 9 else SystemExit)(f"no {state['n']} here")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    inside: Any


class Struct(msgspec.Struct):
    inside: Any


class Tagged(msgspec.Struct, tag=True, array_like=True, rename="camel"):
    the_size: int
    inside: Any = None


class Model(pydantic.BaseModel):
    inside: Any = None
    count: int = 1


class Movie(TypedDict):
    year: int
    notes: Any


class Text(str):
    pass


class Number(int):
    pass


class Share(float):
    pass


class Row(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")

# One of each kind, and pairs of it that MessagePack or JSON alone would make the same.
VALUES: list[Any] = [
    None, True, 1, 1.0, "1", b"1", bytearray(b"1"), memoryview(b"1"), 2**63, 2**64, -(2**63) - 1,
    2**200, float("nan"), float("inf"), -0.0, 1j, "\ud800", [1], (1,), {1}, frozenset({1}),
    range(3), slice(1, None, 2), (), [], {}, set(), {1: 2}, {"1": 2}, {None: 1, True: 2.5, b"k": 3},
    {2**70: 1}, {(1, "a"): [(2,)]}, {"a": {"b": ({3}, [4])}},
    dt.datetime(2020, 1, 2, 3), dt.datetime(2020, 1, 2, 3, tzinfo=dt.UTC),
    dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    dt.datetime(2020, 1, 2, 3, 4, 5, 6, dt.timezone(dt.timedelta(hours=-3), "there")),
    dt.date(2020, 1, 2), dt.time(1, 2, 3, 4), dt.time(1, tzinfo=dt.UTC),
    dt.timedelta(-1, 2, 3), dt.UTC, BERLIN,
    decimal.Decimal("1.50"), decimal.Decimal("Infinity"), fractions.Fraction(1, 3),
    uuid.UUID(int=7), collections.deque([1, (2,)], 5), collections.OrderedDict(b=1, a=(2,)),
    collections.Counter("aab"), collections.defaultdict(list, {1: [2]}), array("d", [1, 2.5]),
    ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8"), pathlib.Path("/a/b"),
    Color.RED, Color.BLUE, Level.LOW, Mode.READ | Mode.WRITE, Pair(1, (2,)), Dot(1, 2),
    Box(1, (2,), [{3}]), Box(1, Box(2, Color.RED)), Frozen({1: 2}), Struct((1,)), Tagged(1, {2}),
    Model(inside=(1, {2})), Text("a"), Number(4), Share(0.5), Row([1, (2,)]), Table({(1,): 2}),
    np.int8(3), np.float64(2.5), np.float32(0.5), np.bool_(True), np.str_("a"), np.bytes_(b"a\0"),
    np.complex64(1j), np.datetime64("2020-01-01T00:00:00.000000001"), np.timedelta64(5, "Y"),
    np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(9)[::2],
    np.array(5), np.zeros((0, 3)), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    np.array(["2020"], "M8[ns]"), np.array(["ab", "c"]), np.arange(3, dtype=">i2"),
]  # fmt: skip


@task
def same(x):  # type: ignore[no-untyped-def]
    return x


@task
def seen(x):  # type: ignore[no-untyped-def]
    """Return the argument that the function itself gets."""
    return describe(x)


@task
def one_of_each(n: int):  # type: ignore[no-untyped-def]
    return VALUES[n]


@task
def opened(n: int):  # type: ignore[no-untyped-def]
    """Return a value that its caller cannot load, for 2."""
    return Unloadable(n) if n in (2, 9) else (n,)


@task
def option(n: int, *, x=None, y: Any = (1,)):  # type: ignore[no-untyped-def]
    return [x, y]


@task
def lists(x: list[Any]) -> list[Any]:
    return x


@task
def tuples(x: tuple) -> tuple[Any, ...]:  # type: ignore[type-arg]
    return x


@task
def sets(x: set) -> set:  # type: ignore[type-arg]
    return x


@task
def bare(x: list) -> list:  # type: ignore[type-arg]
    return x


@task
def dicts(x: dict) -> dict:  # type: ignore[type-arg]
    return x


@task
def objects(x: dict[str, object]) -> dict[str, object]:
    return x


@task
def an_object(x: object) -> object:
    return x


@task
def union(x: list[Any] | dict[int, Any] | None) -> list[Any] | dict[int, Any] | None:
    return x


@task
def movies(x: Movie) -> Movie:
    return x


@task
def boxes(x: Box) -> Box:
    return x


@task
def pairs(x: Pair) -> Pair:
    return x


@task
def structs(x: Tagged) -> Tagged:
    return x


@task
def models(x: Model) -> Model:
    return x


@task
def moment(x: dt.datetime) -> dt.datetime:
    return x


@task
def annotated(x: tuple[int, str], *, at: dt.date) -> tuple[int, str]:
    return x


INSIDE: Any = [(1,), {2}, {3: (4,)}, b"5", dt.date(2020, 1, 1), Color.RED, 2**70]
PARTLY: list[tuple[Callable[[Any], Any], Any]] = [
    (lists, INSIDE), (bare, INSIDE), (tuples, tuple(INSIDE)), (sets, {(1,), Color.RED, 2**70}),
    (dicts, {"a": INSIDE, 1: (2,)}), (objects, {"a": INSIDE}), (an_object, tuple(INSIDE)),
    (union, INSIDE), (union, {1: (2,)}), (union, None), (movies, Movie(year=1, notes=(2,))),
    (boxes, Box(1, (2,), INSIDE)), (pairs, Pair(1, INSIDE)), (structs, Tagged(1, INSIDE)),
    (models, Model(inside=[1, "a", {"b": None}])),
]  # fmt: skip
