"""Every beginner's mistake at the Python API is answered with the next step."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from jetmap import Cluster, ClusterClosed, ConfigurationError, LimitExceeded, task
from jetmap.functions.advice import not_a_task
from jetmap.settings import Settings

pytestmark = pytest.mark.anyio


@task(name="advice.f")
def f(n: int) -> int:
    return n + 1


@task(name="advice.g")
def g(n: int, *, k: int = 2, chunksize: int = 1) -> int:
    return n * k * chunksize


@task(name="advice.same")
def same(x: Any) -> Any:
    return x


def undecorated(x: int) -> int:
    return x


async def asynchronous(x: int) -> int:
    return x


async def words() -> AsyncIterator[str]:
    yield "a"


class Model:
    def predict(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x

    @classmethod
    def made(cls, x: int) -> int:
        return x


FUNCTIONS: dict[str, tuple[Any, str]] = {
    "undecorated": (undecorated, "test_advice.undecorated is not a @task; decorate it"),
    "lambda": (lambda x: x, "a lambda is not a @task, because workers find functions by their"),
    "builtin": (len, "len is a builtin and is not a @task; write .* return len(item)"),
    "method of a builtin": (str.upper, "str.upper is a builtin and is not a @task"),
    "class": (Model, "test_advice.Model is a class and is not a @task; .* return Model(item)"),
    "builtin class": (str, "str is a class and is not a @task; .* return str(item)"),
    "method": (Model().predict, "is a method, .* return Model(…).predict(item)"),
    "class method": (Model.made, "is a method, .* return Model.made(item)"),
    "object": (Model(), "is an object of class Model .* return Model(…)(item)"),
    "partial": (functools.partial(g, k=3), "a partial of g .* items, kwargs={'k': 3})"),
    "partial of a class": (functools.partial(Model), "a partial of Model"),
    "async": (asynchronous, "is async, and a @task computes: write def"),
    "None": (None, "None is not a function; pass the @task itself, not what it returns"),
    "its value": (7, "7 is not a function; pass the @task itself"),
    "the items": ([1], r"the function comes first, then the items: .* got \[1\] first"),
    "an array": (np.arange(9), "the function comes first"),
}


@pytest.mark.parametrize("case", FUNCTIONS.values(), ids=FUNCTIONS)
async def test_what_is_given_as_the_function(inline: Cluster, case: tuple[Any, str]) -> None:
    function, message = case
    for call in (inline.map, inline.submit):
        with pytest.raises(TypeError, match=message.replace("(", r"\(").replace(")", r"\)")):
            await call(function, [1])
    with pytest.raises(TypeError, match=r" is | comes first"):
        inline.stream(function, [1])
    await asyncio.to_thread(_refused_by_sync, inline, function)


def _refused_by_sync(cluster: Cluster, function: Any) -> None:
    for call in (cluster.sync.map, cluster.sync.stream):
        with pytest.raises(TypeError, match=r" is | comes first"):
            call(function, [1])


ARGUMENTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "option of the function": (
        lambda map: map(g, [1], k=1),
        r"map\(\) has no option 'k'; parameters of the function go into kwargs: "
        r"cluster.map\(f, items, kwargs=\{'k': 1\}\). Its own options: kwargs, ",
    ),
    "long option": (lambda map: map(g, [1], k="x" * 999), r"\{'k': 'xxxx.*\.\.\.\}"),
    "option of a pool": (
        lambda map: map(f, [1], chunksize=8),
        "'chunksize': chunks are cut by what an item costs",
    ),
    "such an option of the function": (
        lambda map: map(g, [1], chunksize=8),
        r"kwargs=\{'chunksize': 8\}",
    ),
    "workers": (lambda map: map(f, [1], max_workers=2), r"Cluster\(cores=…\)"),
    "misspelt": (lambda map: map(f, [1], kwarg={}), "no option 'kwarg'; is it 'kwargs'?"),
    "two lists": (lambda map: map(f, [1], [2]), r"list\(zip\(a, b\)\)"),
    "no items": (lambda map: map(f), r"needs the items too: cluster.map\(f, items\)"),
    "swapped": (lambda map: map([1], f), "the function comes first"),
    "None": (lambda map: map(f, None), "items is None; pass a list"),
    "number": (lambda map: map(f, 7), "items is of type int; pass a list"),
    "function": (lambda map: map(f, itertools.count), "items is itertools.count; call it"),
    "kwargs": (lambda map: map(g, [1], kwargs=[("k", 1)]), "kwargs is not a dict"),
    "kwargs by number": (
        lambda map: map(g, [1], kwargs={1: 2}),
        "has keys that are not names",
    ),
}


@pytest.mark.parametrize("case", ARGUMENTS.values(), ids=ARGUMENTS)
async def test_arguments(inline: Cluster, case: tuple[Callable[[Any], Any], str]) -> None:
    call, message = case
    with pytest.raises(TypeError, match=message):
        await call(inline.map)
    names = {"map": inline.stream, "submit": inline.submit}
    with pytest.raises(TypeError):
        call(names["map"])
    with pytest.raises(TypeError):
        await call(names["submit"])

    def blocking() -> None:
        with pytest.raises(TypeError, match=message):
            call(inline.sync.map)

    await asyncio.to_thread(blocking)


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("max_workers", "the number of workers is cores="),
        ("max_list", "it is a setting; .* set JETMAP_MAX_LIST, or .*load\\(max_list=…\\)"),
        ("core", "is it 'cores'?"),
        ("zzz", "Its options: url, tasks, pool, "),
    ],
)
def test_a_parameter_that_a_cluster_does_not_have(option: str, advice: str) -> None:
    with pytest.raises(TypeError, match=f"^Cluster\\(\\) has no option '{option}'.*{advice}"):
        Cluster(**{option: 1})
    with pytest.raises(TypeError, match="tasks must be a list of files or modules, not 5"):
        Cluster(tasks=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^cores must be .*, not 1\.5"):
        Cluster(cores=1.5).settings  # type: ignore[arg-type]  # noqa: B018


async def test_items_that_are_coroutines(inline: Cluster) -> None:
    coroutine = asynchronous(1)
    with pytest.raises(TypeError, match="items is a coroutine; await it"):
        await inline.map(f, coroutine)  # type: ignore[call-overload]
    coroutine.close()

    def blocking() -> None:
        with pytest.raises(TypeError, match=r"async iterable, which cluster\.sync cannot read"):
            inline.sync.map(same, words())  # type: ignore[call-overload]

    await asyncio.to_thread(blocking)


async def test_what_may_be_items(inline: Cluster) -> None:
    class Sequence:
        """A sequence with the protocol of old classes."""

        def __getitem__(self, index: int) -> int:
            return range(3)[index]

    old: Any = Sequence()
    assert await inline.map(f, old) == [1, 2, 3]
    assert await inline.map(same, {"a": 1}) == ["a"]
    assert await inline.map(same, {7}) == [7]
    assert await inline.map(f, np.array([1, 2])) == [2, 3]
    assert await inline.map(same, words()) == ["a"]
    assert await inline.map(same, []) == []
    assert await inline.map(g, [1], kwargs=None) == [2]


async def test_an_endless_list_ends_at_the_limit() -> None:
    taken = itertools.count()

    async def endless() -> AsyncIterator[int]:
        while True:
            yield next(taken)

    async with Cluster(inline=True, settings=Settings(max_list=100)) as cluster:
        told = "101 items.*; the limit is 100 .* stream.. takes any number"
        with pytest.raises(LimitExceeded, match=told):
            await cluster.map(f, taken)
        assert next(taken) == 101
        with pytest.raises(LimitExceeded, match=told):
            await cluster.map(f, endless())
        assert next(taken) == 203

        def blocking() -> None:
            with pytest.raises(LimitExceeded, match=told):
                cluster.sync.map(f, taken)

        await asyncio.to_thread(blocking)
        with pytest.raises(LimitExceeded, match="has 500 items; the limit is 100"):
            await cluster.map(f, range(500))


async def test_the_wrong_statement(inline: Cluster) -> None:
    cluster: Any = Cluster(inline=True)
    with pytest.raises(TypeError, match=r"'with Cluster\(\).sync as cluster' elsewhere"):  # noqa: SIM117
        with cluster:
            pass
    with pytest.raises(TypeError, match=r"'async with Cluster\(\) as cluster' in async code"):
        async with cluster.sync:
            pass
    stream: Any = inline.stream(f, [1])
    with pytest.raises(TypeError, match=r"'async for'; cluster\.sync\.stream is for 'for'"):
        for _ in stream:
            pass
    with pytest.raises(TypeError, match="'async with', not 'with'"), stream:
        pass
    await stream.aclose()

    def blocking() -> Any:
        return inline.sync.stream(f, [1])

    stream = await asyncio.to_thread(blocking)
    with pytest.raises(TypeError, match="is read with 'for'"):
        async for _ in stream:
            pass
    await asyncio.to_thread(stream.close)


async def test_other_mistakes(inline: Cluster) -> None:
    unbound: Any = Cluster.map
    with pytest.raises(TypeError, match="on the class; start a cluster first"):
        await unbound(f, [1])
    for wrong in (4, f, ["tasks.py"]):
        with pytest.raises(TypeError, match=r"is the URL of a NATS server, not .* Cluster\(cores"):
            Cluster(wrong)  # type: ignore[arg-type]
    with pytest.raises(ClusterClosed, match=r"'async with Cluster\(\)'"):
        await Cluster().map(f, [1])
    with pytest.raises(TypeError, match=r"@task\(name='x'\)"):
        task("x")  # type: ignore[type-var]
    assert not callable(inline) and not hasattr(inline, "__await__")


def test_advice_never_fails_itself() -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

        def __repr__(self) -> str:
            return "odd " * 99

    assert "..." in not_a_task(Odd())
