"""``cluster.map(f, xs)`` is ``[f(x) for x in xs]``, in types too, where a
function has no annotations; or it is refused before anything runs."""

from __future__ import annotations

import datetime as dt
import re
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import untyped_functions as untyped
from alike import alike
from fake_cluster import gateway
from hypotheses import examples
from jetmap import Cluster, ItemInvalid, Unencodable
from jetmap.client.call import Call
from jetmap.codecs import codec_for
from jetmap.codecs.walk import CODE, KINDS, decode_plainly
from jetmap.dispatch.sources import RawItems
from jetmap.functions.by_name import OpenParts
from processes import run_python
from servers import Site, outcomes, site
from tools import skip_or_fail
from untyped_functions import PARTLY, VALUES, Box, Color, Model, Pair, Unloadable

pytestmark = pytest.mark.anyio
anything = codec_for(Any)


def there_and_back(value: Any) -> Any:
    return anything.decode(anything.encode(value, "python"), "python")


# Without a cluster


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_each_kind(value: Any) -> None:
    assert alike(there_and_back(value), value)
    assert alike(there_and_back({"a": [value], "b": (value, {"c": value})})["b"][1]["c"], value)


def test_every_kind_has_a_value_above() -> None:
    names = {name for value in VALUES for name in _kinds(anything.encode(value, "python"))}
    moments = {"Timestamp", "Timedelta", "NaT", "NA"}  # Below.
    tables = {"DataFrame", "Series", "Index", "Table", "RecordBatch"}  # In their own test.
    assert KINDS.keys() - names - tables == moments


def _kinds(encoded: bytes) -> Iterator[str]:
    for name in KINDS:
        if bytes([0xA0 | len(name)]) + name.encode() in encoded:
            yield name


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones()) | st.dates() | st.times()
    | st.timedeltas() | st.uuids() | st.decimals(allow_nan=False) | st.fractions()
    | st.complex_numbers() | st.sampled_from(Color) | st.ip_addresses()
)  # fmt: skip
hashable = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.builds(Box, st.integers(-9, 9), inner)
        | st.builds(Pair, st.integers(), inner)
    ),
    max_leaves=10,
)
each = examples(60, suppress_health_check=list(HealthCheck)
)  # fmt: skip


@examples(300, suppress_health_check=list(HealthCheck))
@given(values)
def test_any_value(value: Any) -> None:
    assert alike(there_and_back(value), value)


# On a cluster, and inline


@each
@given(items=st.lists(values, max_size=8))
async def test_map_is_a_loop(cluster: Cluster, items: list[Any]) -> None:
    assert alike(await cluster.map(untyped.same, items), [untyped.same(item) for item in items])
    assert await cluster.map(untyped.seen, items) == [untyped.seen(item) for item in items]


async def test_each_kind_travels(cluster: Cluster) -> None:
    assert alike(await cluster.map(untyped.same, VALUES), VALUES)
    assert await cluster.map(untyped.seen, VALUES) == [untyped.seen(value) for value in VALUES]
    assert alike(await cluster.map(untyped.one_of_each, range(len(VALUES))), VALUES)
    for ordered in (False, True):
        found = await outcomes(cluster.stream(untyped.same, VALUES, ordered=ordered))
        assert alike([outcome.value for outcome in found], VALUES)


async def test_called_by_name(cluster: Cluster) -> None:
    await cluster.map(untyped.same, [1])  # From now on workers offer it.
    assert alike(await cluster.map("same", VALUES), VALUES)
    await cluster.map(untyped.option, [1])
    kwargs = {"x": (1, {2}), "y": Color.RED}
    assert await cluster.map("option", [1], kwargs=kwargs) == [[(1, {2}), Color.RED]]
    # What has an annotation decodes by it, also if it is called by name.
    at = dt.date(2020, 1, 1)
    assert await cluster.map(untyped.annotated, [(1, "a")], kwargs={"at": at}) == [(1, "a")]
    assert await cluster.map("annotated", [(1, "a")], kwargs={"at": at}) == [[1, "a"]]


@pytest.mark.parametrize("case", PARTLY, ids=lambda case: case[0].__name__)
async def test_called_by_name_partly_annotated(cluster: Cluster, case: Any) -> None:
    """Values without an annotation arrive unchanged, or are refused before anything runs."""
    f, value = case
    await cluster.map(f, [value])  # From now on workers offer it.
    try:
        found = await cluster.map(f.__name__, [value])
    except Unencodable as error:
        assert re.search("pass the function instead of its name|Model cannot travel", str(error))
    else:
        assert f in (untyped.bare, untyped.an_object) or value is None
        assert alike(found, [value])


async def test_called_by_name_with_types_that_travel(cluster: Cluster) -> None:
    plain = [[1, "a", {"b": [None, b"c", 2.5]}], []]
    await cluster.map(untyped.lists, plain)
    assert await cluster.map("lists", plain) == plain
    with pytest.raises(Unencodable, match=r"tuple.*at `\$\[1\]`") as caught:
        await cluster.map("lists", [[1], [1, (2,)]])
    assert caught.value.index == 1
    found = await outcomes(cluster.stream("lists", [[1], [1, (2,)]]))
    assert found[0].ok and isinstance(found[1].error, Unencodable)


async def test_called_by_name_before_it_is_announced(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.map(untyped.same, [1])
    monkeypatch.setattr(Cluster, "info", lambda self, name: None)
    assert await cluster.map("same", [1, "a", [b"b"]]) == [1, "a", [b"b"]]
    with pytest.raises(Unencodable, match="not announced yet"):
        await cluster.map("same", [1, (2,)])
    with pytest.raises(TypeError, match="keyword parameter 'x' of option"):
        await cluster.map("option", [1], kwargs={"x": (1,)})


SCHEMA = {
    "anyOf": [
        {"type": "array", "prefixItems": [{"type": "string"}], "items": {}},
        {"$ref": "#/$defs/Box"},
        {"type": "null"},
    ]
}
BOX = {
    "type": "object",
    "properties": {"at": {"type": "string", "format": "date"}, "inside": {"title": "Inside"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, None),
        (["a", 1, [2]], None),
        (["a", 1, (2,)], "[2]"),
        ([dt.date(2020, 1, 1), 1], None),  # Annotated: it decodes, or is refused there.
        ({"at": dt.date(2020, 1, 1), "inside": 1}, None),
        ({"at": dt.date(2020, 1, 1), "inside": dt.date(2020, 1, 1)}, "['inside']"),
        ({"other": (1,)}, "['other']"),
        (Box(1, (2,)), "['inside']"),
    ],
)
def test_parts_that_only_a_schema_tells(value: Any, place: str | None) -> None:
    parts = OpenParts("an item of f", SCHEMA, {"Box": BOX})
    if place is None:
        parts.check([value])
        return
    with pytest.raises(TypeError, match="an item of f.*" + re.escape(f"at `${place}`")):
        parts.check([value])


async def test_keyword_parameters(cluster: Cluster) -> None:
    for value in VALUES:
        found = await cluster.map(untyped.option, [1], kwargs={"x": value})
        assert alike(found, [[value, (1,)]]), value


@pytest.mark.parametrize("case", PARTLY, ids=lambda case: case[0].__name__)
async def test_the_part_without_an_annotation(cluster: Cluster, case: Any) -> None:
    f, value = case
    assert alike(await cluster.map(f, [value, value]), [value, value])


# Refused


class Alien:
    def __eq__(self, other: object) -> bool:
        return type(other) is Alien

    __hash__ = None  # type: ignore[assignment]


def refused() -> dict[str, tuple[Any, str]]:
    @untyped.dataclasses.dataclass
    class Local:
        x: int = 1

    return {
        "object": (Alien(), r"Alien cannot travel; send builtins, a dataclass"),
        "deep inside": ([{"a": (Alien(),)}], "Alien cannot travel"),
        "lock": (threading.Lock(), "lock cannot travel"),
        "function": (len, "builtin_function_or_method cannot travel"),
        "local class": (Local(), "its class can only be found by name at module level"),
        "array of objects": (np.array([None]), r"its dtype is object; convert it with .tolist"),
        "masked array": (np.ma.array([1]), "convert it with numpy.asarray"),
        "pattern": (re.compile("x"), "Pattern cannot travel"),
        "default factory": (untyped.collections.defaultdict(Alien), "default_factory"),
        "iterator": (iter([]), "list_iterator cannot travel"),
    }


@pytest.mark.parametrize("name", refused())
async def test_refused_without_trust(name: str) -> None:
    value, message = refused()[name]
    call = Call.of(untyped.same, None)
    with pytest.raises(Unencodable, match=message) as caught:
        await call.prepared([*range(3000), value, 1])
    assert caught.value.index == 3000
    with pytest.raises(TypeError, match=message):
        Call.of(untyped.option, {"x": value})


@pytest.mark.parametrize("name", [name for name in refused() if name != "lock"])
async def test_trusted_values_are_pickled(cluster: Cluster, name: str) -> None:
    value, _ = refused()[name]
    found = (await cluster.map(untyped.same, [1, value]))[1]
    assert type(found) is type(value)
    if name != "iterator":
        assert repr(found) == repr(value) or found == value


async def test_an_item_that_cannot_be_loaded_costs_itself(cluster: Cluster) -> None:
    items = [1, Unloadable(7), (2,), [Unloadable(8)], {3}, Unloadable(9), 4]
    found = await cluster.map(untyped.same, items, return_exceptions=True)
    assert found[::2] == items[::2]
    for error, n in zip(found[1::2], "789", strict=True):
        assert isinstance(error, ItemInvalid) and f"no {n} here" in error.message
    values = await cluster.map(untyped.opened, [1, 2, 3, 9, 4], return_exceptions=True)
    assert values[::2] == [(1,), (3,), (4,)]
    for error, n in zip(values[1::2], "29", strict=True):
        assert isinstance(error, Unencodable) and f"no {n} here" in error.message


@pytest.mark.parametrize("name", ["lock", "generator", "file"])
async def test_refused_before_anything_runs(cluster: Cluster, name: str) -> None:
    value = {"lock": threading.Lock(), "generator": (n for n in "a"), "file": sys.__stdin__}[name]
    await _is_refused(cluster, value, "cannot travel; it cannot be pickled")


async def _is_refused(cluster: Cluster, value: Any, message: str) -> None:
    before = cluster.stats.chunks_sent if hasattr(cluster.stats, "chunks_sent") else None
    with pytest.raises(Unencodable, match=message) as caught:
        await cluster.map(untyped.same, [*range(3000), value, 1])
    assert caught.value.index == 3000
    assert before is None or cluster.stats.chunks_sent == before
    found = await cluster.map(untyped.same, [1, value, 2], return_exceptions=True)
    assert found[::2] == [1, 2] and isinstance(found[1], Unencodable)
    first, second = await outcomes(cluster.stream(untyped.same, [value, 5]))
    assert isinstance(first.error, Unencodable) and second.value == 5
    with pytest.raises(TypeError, match=message):
        await cluster.map(untyped.option, [1], kwargs={"x": value})


async def test_a_list_that_holds_itself(cluster: Cluster) -> None:
    endless: list[Any] = [(1,)]
    endless.append(endless)
    (found,) = await cluster.map(untyped.same, [endless])
    assert found[0] == (1,) and found[1] is found
    with pytest.raises(Unencodable, match="recursion"):
        await Call.of(untyped.same, None).prepared([endless])


def test_flat_and_deep_lists_are_not_walked() -> None:
    """Values that MessagePack keeps are passed on, the same objects."""
    for flat in ([1, 2.5, "a", None, True, b"x"], list(range(1000))):
        assert anything.prepare(flat, "python") is flat
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    assert there_and_back(deep) == deep
    for format in ("json", "msgpack"):
        assert anything.prepare([(1,)], format)[0] == (1,)  # type: ignore[arg-type]


def test_annotated_functions_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr("jetmap.codecs.walk.tag", fail)
    call = Call.of(untyped.annotated, {"at": dt.date(2020, 1, 1)})
    assert (call.format, call.item_format) == ("msgpack", "msgpack")
    assert call.item.encode_list([(1, "a")], call.item_format)


@pytest.mark.parametrize("inside", [(1,), {1: 2}, b"x", dt.date(2020, 1, 1), [Color.RED]])
async def test_a_model_refuses_what_json_would_change(inline: Cluster, inside: Any) -> None:
    with pytest.raises(Unencodable, match=r"annotated Any .* at `\$.inside"):
        await inline.map(untyped.models, [Model(inside=inside)])


SCRIPT = """
import enum
from jetmap import Cluster, task
import untyped_functions

class Point:
    def __init__(self, x):
        self.x = x

class Color(enum.Enum):
    RED = 1

def helper(n):
    return n + 1

MINE = [Point, Color.RED, helper]

@task
def known(x):
    return type(x) is Point or [x is mine for mine in MINE].count(True) == 1

@task
def make(n):
    return Point(n), MINE

if __name__ == "__main__":
    with Cluster(cores=1).sync as cluster:
        assert cluster.map(known, [*MINE, Point(1), 5]) == [True] * 4 + [False]
        point, mine = cluster.map(make, [3])[0]
        assert type(point) is Point and point.x == 3 and mine == MINE
        point, *mine = cluster.map(untyped_functions.same, [Point(1), *MINE])
        assert type(point) is Point and mine == MINE
"""


def test_classes_and_functions_of_a_script_keep_their_identity(tmp_path: Path) -> None:
    done = run_python(SCRIPT, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# Unknown classes


def written(kind: str, *parts: Any) -> bytes:
    """A value as another program may have written it."""
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(CODE, msgspec.msgpack.encode([kind, *parts])))


def test_a_class_that_the_other_side_does_not_have() -> None:
    assert anything.decode(written("record", "untyped_functions", "Box", []), "python")
    with pytest.raises(ValueError, match=r"has not imported the class nowhere.Box"):
        anything.decode(written("record", "nowhere", "Box", []), "python")
    # Not there, of another kind, not a class, not a record.
    for name in ("Bux", "Color", "BERLIN", "same", "Box.inside", "dt"):
        with pytest.raises(ValueError, match="does not have the class"):
            anything.decode(written("record", "untyped_functions", name, []), "python")
    with pytest.raises(ValueError, match="this version of jetmap does not know"):
        anything.decode(written("of the future", 1), "python")


async def test_a_worker_says_which_class_it_lacks(inline: Cluster) -> None:
    elements = [written("record", "untyped_functions", "Bux", []), msgspec.msgpack.encode(2)]
    run = await inline.open("same", RawItems(elements, "python"), format="python")
    batches = [batch async for batch in run]
    records = [record for batch in batches for record in batch.errors]
    assert [(r.kind, r.index) for r in records] == [("invalid", 0)]
    assert "does not have the class untyped_functions.Bux" in records[0].message


def test_nothing_is_imported_for_a_value_of_a_stranger() -> None:
    with pytest.raises(ValueError, match=r"has not imported the class this\.Color"):
        anything.decode(written("enum", "this", "Color", "RED", 1), "python")
    assert "this" not in sys.modules


# Annotated moments of other libraries


class Nano(dt.datetime):
    """A datetime that is more exact, as pandas has one."""

    nanosecond = 0


async def test_a_moment_of_a_subclass(cluster: Cluster) -> None:
    at = dt.datetime(2020, 1, 2, 3, 4, 5, 6, dt.UTC)
    item = Nano(2020, 1, 2, 3, 4, 5, 6, dt.UTC)
    assert await cluster.map(untyped.moment, [item]) == [at]
    assert type((await cluster.map(untyped.moment, [item]))[0]) is dt.datetime
    item.nanosecond = 7
    with pytest.raises(Unencodable, match="has nanoseconds"):
        await cluster.map(untyped.moment, [item])


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_moments_of_numpy(format: Any) -> None:
    codec = codec_for(dt.datetime)

    def through(value: Any, codec: Any = codec) -> Any:
        return codec.decode(codec.encode(value, format), format)

    for unit in ("s", "ms", "us", "ns"):
        assert through(np.datetime64("2020-01-02T03:04:05", unit)) == dt.datetime(
            2020, 1, 2, 3, 4, 5
        )
        duration = np.timedelta64(np.timedelta64(90, "s"), unit)
        assert through(duration, codec_for(dt.timedelta)) == dt.timedelta(seconds=90)
    for lossy in (
        np.datetime64("2020-01-02T03:04:05.000000001"),
        np.datetime64("NaT", "s"),
        np.timedelta64(1, "ns"),
        np.timedelta64(1, "Y"),
        np.timedelta64("NaT", "s"),
    ):
        with pytest.raises(TypeError, match="is not exactly a Python"):
            codec.encode(lossy, format)


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_subclasses_of_other_values(format: Any) -> None:
    import decimal

    class Money(decimal.Decimal):
        pass

    class Id(uuid.UUID):
        pass

    for value, base in ((Money("1.50"), decimal.Decimal), (Id(int=7), uuid.UUID)):
        codec = codec_for(base)
        back = codec.decode(codec.encode(value, format), format)
        assert type(back) is base and back == value


def test_moments_of_pandas() -> None:
    try:
        import pandas as pd
    except ImportError:
        skip_or_fail("pandas is not installed")
    moments: list[Any] = [
        pd.Timestamp("2020-01-01T00:00:00.000000001", tz="Europe/Berlin"), pd.Timestamp("2020"),
        pd.Timestamp("2020-01-01", tz="UTC"), pd.Timedelta("3ns"), pd.Timedelta("1D").as_unit("s"),
    ]  # fmt: skip
    for value in moments:
        back = there_and_back(value)
        assert (type(back), back, back.unit) == (type(value), value, value.unit)
        assert getattr(back, "tz", None) == getattr(value, "tz", None)
    assert there_and_back(pd.NaT) is pd.NaT and there_and_back(pd.NA) is pd.NA
    # By an annotation it becomes a datetime, if it is one.
    codec = codec_for(dt.datetime)
    at = pd.Timestamp("2020-01-02 03:04:05", tz="UTC")
    assert codec.decode(codec.encode(at, "msgpack"), "msgpack") == at.to_pydatetime()
    for lossy in (moments[0], pd.NaT):
        with pytest.raises(TypeError, match="cannot travel as a Python datetime"):
            codec.encode(lossy, "msgpack")


# Callers in other languages


def test_what_other_languages_read() -> None:
    shown = decode_plainly(
        anything.encode([(1, {2}), {(1,): 2}, Color.RED, Box(1, (2,)), Pair(1, 2), 2**70], "python")
    )
    assert shown == [
        (1, {2}), {(1,): 2}, ("r", 1), {"size": 1, "inside": (2,), "more": []}, (1, 2), 2**70
    ]  # fmt: skip
    assert decode_plainly(anything.encode([np.arange(3), np.int8(1)], "python")) == [[0, 1, 2], 1]


async def test_json_callers_get_what_they_got(inline: Cluster) -> None:
    """Over HTTP a list stays a list, and values are written as JSON has them."""
    numbers = [n for n, value in enumerate(VALUES) if type(value) in (tuple, set, dt.date)]
    async with gateway(inline) as client:  # type: ignore[arg-type]
        response = await client.post("/map/same", json=[[1], {"a": 2}, None])
        assert response.json() == [[1], {"a": 2}, None]
        response = await client.post("/map/one_of_each", json=numbers)
        assert response.json() == [[1], [1], [], [], "2020-01-02"]


@pytest.fixture(scope="module")
async def with_workers(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Site, Cluster]]:
    async with site(tmp_path_factory.mktemp("values")) as there:
        cluster = await there.cluster()
        await there.agent(cluster, untyped.__file__)
        yield there, cluster


async def test_a_job(with_workers: tuple[Site, Cluster]) -> None:
    _, cluster = with_workers
    kept = [value for value in VALUES if not isinstance(value, memoryview)]
    job = await cluster.submit(untyped.same, kept)
    assert alike(await job.results(), kept)
    assert alike(await cluster.job(job.id, untyped.same).results(), kept)
    assert alike(await cluster.job(job.id).results(), kept)
    by_name = await cluster.submit("same", kept)
    assert alike(await by_name.results(), kept)
    with pytest.raises(Unencodable, match="Alien cannot travel"):
        await cluster.submit(untyped.same, [1, Alien()])
    # The same job over HTTP is JSON.
    job = await cluster.submit(untyped.same, [(1, {2}), Color.BLUE, {1: 2}, 2**70, 1j])
    await job.results()
    async with gateway(cluster) as client:  # type: ignore[arg-type]
        lines = (
            await client.get(f"/jobs/{job.id}/results", headers={"accept": "application/jsonl"})
        ).text
        assert '"value":[1,[2]]' in lines and '"value":"b"' in lines and '{"1":2}' in lines
        assert str(2**70) in lines and '"unencodable"' in lines


async def test_a_far_worker_that_trusts_its_caller(with_workers: tuple[Site, Cluster]) -> None:
    """Both sides must trust: neither alone makes a pickle of anything."""
    there, careful = with_workers
    agent = await there.agent(careful, untyped.__file__, "--trust-pickle", cores=1)
    both = await there.cluster(trust_pickle=True)
    await there.ready(both, agent)
    assert careful._call(untyped.same, None, True).format == "python"
    with pytest.raises(Unencodable, match="Alien cannot travel"):
        await careful.map(untyped.same, [Alien()])
    assert both._call(untyped.same, None, True).format == "pickle"
    items = [*VALUES, np.array([None]), re.compile("x"), np.arange(100_000.0)]
    assert alike(await both.map(untyped.same, items), items)
    assert alike(await both.map("same", items), items)
    found = await outcomes(both.stream(untyped.same, items))
    assert alike([outcome.value for outcome in found], items)
    # A job of pickles: for those who load them.
    job = await both.submit(untyped.same, [np.array([None]), (1,), *range(500)])
    assert alike(await job.results(), [np.array([None]), (1,), *range(500)])
    assert (await both.job(job.id).results())[1:3] == [(1,), 0]
    with pytest.raises(Unencodable, match="annotate what the function returns"):
        await careful.job(job.id, untyped.same).results()
    async with gateway(careful) as client:  # type: ignore[arg-type]
        for path in ("results", "events"):
            refusal = await client.get(f"/jobs/{job.id}/{path}")
            assert refusal.status_code == 406
            assert "annotate what same returns" in refusal.json()["detail"]
        refusal = await client.post("/map/opened", json=[1, 2])
        assert refusal.status_code == 406
        assert "annotate what opened returns" in refusal.json()["detail"]
