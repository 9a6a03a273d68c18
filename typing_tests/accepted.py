"""Calls that type checkers accept, with the type that they find. Checked, never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=false

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    ParamSpec,
    TypedDict,
    TypeVar,
    assert_type,
    overload,
)

import numpy as np

from jetmap import (
    BadInput,
    Cluster,
    Executor,
    Fault,
    ItemError,
    Job,
    JobStatus,
    Outcome,
    Progress,
    Ref,
    Retryable,
    Stream,
    SyncCluster,
    SyncJob,
    SyncJobStream,
    SyncStream,
    per_worker,
    task,
)
from jetmap.nats.broker import Broker
from jetmap.nats.connection import Connection
from jetmap.testing import MemoryConnection

T = TypeVar("T")
P = ParamSpec("P")


@task
def is_prime(n: int) -> bool:
    return n > 1


def load_model() -> dict[str, int]:
    return {}


@task
def embed(text: str, *, model: Annotated[dict[str, int], per_worker(load_model)]) -> int:
    return model[text]


@task(timeout=5)
def power(n: int, *, exponent: int) -> int:
    return n * exponent


@task
def scaled(n: float, *, by: float = 2.0) -> float:
    return n * by


@task(
    retries=3,
    retry_on=(OSError, TimeoutError),
    no_retry_on=FileNotFoundError,
    backoff=0.5,
    max_parallel=4,
)
def fetched(url: str) -> bytes:
    return url.encode()


@task(batch=64, linger=0.005, timeout=5)
def embed_all(texts: list[str], *, scale: float = 1.0) -> list[list[float]]:
    return [[scale * len(text)] for text in texts]


@task(batch=8)
def lengths(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


@task(batch=8)
def rows(texts: list[str]) -> np.ndarray[Any, Any]:
    return np.array([[len(text)] for text in texts])


@task
def same(x: T) -> T:
    return x


@task
def untyped(x):  # type: ignore[no-untyped-def]
    return x


@overload
def either(x: int) -> str: ...
@overload
def either(x: str) -> int: ...
@task
def either(x: int | str) -> int | str:
    return x


class Model:
    def predict(self, x: float) -> str:
        return str(x)

    def __call__(self, x: int) -> bytes:
        return bytes(x)

    @staticmethod
    def static(x: int) -> bytes:
        return bytes(x)


class Movie(TypedDict):
    year: int


@task
def year(movie: Movie) -> int:
    return movie["year"]


@dataclass(frozen=True)
class Box:
    size: int

    @classmethod
    def of(cls, size: int) -> Box:
        return cls(size)

    def grown(self) -> Box:
        return Box(self.size + 1)

    def plus(self, n: int, *, twice: bool = False) -> int:
        return self.size + n * (1 + twice)


class Stack(Generic[T]):
    def __init__(self, items: list[T]) -> None:
        self.items = items

    def pushed(self, item: T) -> list[T]:
        return [*self.items, item]


def kept(f: Callable[P, T]) -> Callable[P, T]:
    return f


@task
@kept
def decorated_twice(n: int) -> str:
    return str(n)


@functools.cache
def cached(n: int) -> float:
    return n / 2


@task
def optional(n: int | None) -> int | None:
    return n


@task
def of_pair(pair: tuple[int, str]) -> str:
    return pair[1] * pair[0]


async def numbers() -> AsyncIterator[int]:
    yield 1


def generator() -> Iterator[int]:
    yield 1


async def maps(cluster: Cluster) -> None:
    assert_type(await cluster.map(is_prime, [1, 2]), list[bool])
    assert_type(await cluster.map(is_prime, range(9), timeout=5), list[bool])
    assert_type(await cluster.map(is_prime, generator()), list[bool])
    assert_type(await cluster.map(is_prime, numbers()), list[bool])
    assert_type(await cluster.map(is_prime, (1, True)), list[bool])
    assert_type(await cluster.map(power, [1], kwargs={"exponent": 2}), list[int])
    assert_type(await cluster.map(embed, ["a"]), list[int])
    assert_type(await cluster.map(scaled, [1.5, 2]), list[float])
    assert_type(await cluster.map("is_prime", ["anything"]), list[Any])
    assert_type(await cluster.map(is_prime, [1], return_exceptions=True), list[bool | ItemError])
    assert_type(
        await cluster.map(power, [1], kwargs={"exponent": 2}, return_exceptions=True),
        list[int | ItemError],
    )
    assert_type(await cluster.map("is_prime", [1], return_exceptions=True), list[Any])
    assert_type(await cluster.map(fetched, ["a"]), list[bytes])
    assert_type(await cluster.map(is_prime, [1], max_failed=10), list[bool | ItemError])
    assert_type(await cluster.map(power, [1], max_failed="5%"), list[int | ItemError])
    assert_type(
        await cluster.map(is_prime, [1], return_exceptions=True, max_failed=0),
        list[bool | ItemError],
    )
    assert_type(await cluster.map(is_prime, [1], values=True), list[bool])
    assert_type(await cluster.map(is_prime, [1], values=False), list[bool | ItemError | None])
    assert_type(await cluster.map(power, [1], values=False), list[int | ItemError | None])
    assert_type(await cluster.map(is_prime, [1], progress=True), list[bool])
    assert_type(await cluster.map("is_prime", [1], progress=lambda p: p.done), list[Any])
    await cluster.map(same, ["a"])
    await cluster.map(untyped, [object()])


async def batches(cluster: Cluster, sync: SyncCluster) -> None:
    """The items are the elements of the list that the function takes."""
    assert_type(await cluster.map(embed_all, ["a"]), list[list[float]])
    assert_type(await cluster.map(embed_all, (t for t in ("a",)), timeout=5), list[list[float]])
    assert_type(await cluster.map(lengths, ["a"]), list[int])
    assert_type(await cluster.map(rows, ["a"]), list[Any])
    assert_type(await cluster.map(lengths, ["a"], return_exceptions=True), list[int | ItemError])
    assert_type(await cluster.map(lengths, ["a"], max_failed=1), list[int | ItemError])
    assert_type(await cluster.map(lengths, ["a"], values=False), list[int | ItemError | None])
    assert_type(cluster.stream(embed_all, ["a"]), Stream[str, list[float]])
    assert_type(cluster.stream(lengths, ["a"], values=False), Stream[str, int | None])
    assert_type(await cluster.submit(lengths, ["a"]), Job[str, int])
    assert_type(sync.map(lengths, ["a"]), list[int])
    assert_type(sync.stream(lengths, ["a"]), SyncStream[str, int])
    assert_type(sync.submit(lengths, ["a"]), SyncJob[str, int])
    assert_type(embed_all(["a", "b"], scale=2.0), list[list[float]])
    assert_type(lengths(["a"]), list[int])


async def references(cluster: Cluster, sync: SyncCluster) -> None:
    with await cluster.put([1.5]) as ref:
        assert_type(ref, Ref[list[float]])
        assert_type(await cluster.map(power, [1], kwargs={"exponent": ref}), list[int])
        assert_type(await cluster.submit(power, [1], kwargs={"exponent": ref}), Job[int, int])
    assert_type(sync.put("text"), Ref[str])


async def callables(cluster: Cluster, function: Callable[[int], str]) -> None:
    assert_type(await cluster.map(lambda n: n + 1, [1, 2]), list[int])
    assert_type(await cluster.map(function, [1]), list[str])
    assert_type(await cluster.map(len, ["a"]), list[int])
    assert_type(await cluster.map(abs, [1.5]), list[float])
    assert_type(await cluster.map(Model().predict, [1.5]), list[str])
    assert_type(await cluster.map(Model(), [1]), list[bytes])
    assert_type(await cluster.map(Model.static, [1]), list[bytes])
    assert_type(await cluster.map(functools.partial(power, exponent=2), [1]), list[int])
    assert_type(await cluster.map(lambda n: n + 1, [1], max_failed=1), list[int | ItemError])
    await cluster.map(str, [1])
    await cluster.map(either, [1])


async def other_callables(cluster: Cluster, sync: SyncCluster) -> None:
    """Each kind of callable, for each method."""
    assert_type(cluster.stream(len, ["a"]), Stream[str, int])
    assert_type(cluster.stream(Model().predict, [1.5]), Stream[float, str])
    assert_type(cluster.stream(Model(), [1]), Stream[int, bytes])
    cluster.stream(functools.partial(power, exponent=2), [1])
    cluster.stream(same, ["a"])
    cluster.stream(either, [1])
    assert_type(await cluster.submit(lambda n: str(n), [1]), Job[int, str])
    assert_type(await cluster.submit(len, ["a"]), Job[str, int])
    assert_type(await cluster.submit(Model().predict, [1.5]), Job[float, str])
    await cluster.submit(functools.partial(power, exponent=2), [1])
    await cluster.submit(same, ["a"])
    job = await cluster.submit(either, [1])
    await job.update(max_parallel=2, max_failed="5%", labels={"team": "a", "old": None})
    await job.update(max_failed=None, labels=None)
    assert_type(sync.map(len, ["a"]), list[int])
    assert_type(sync.map(Model().predict, [1.5]), list[str])
    assert_type(sync.map(functools.partial(power, exponent=2), [1]), list[int])
    sync.map(same, ["a"])
    sync.map(either, [1])
    assert_type(sync.stream(lambda n: str(n), [1]), SyncStream[int, str])
    assert_type(sync.stream(Model(), [1]), SyncStream[int, bytes])
    assert_type(sync.submit(lambda n: str(n), [1]), SyncJob[int, str])
    assert_type(sync.submit(len, ["a"]), SyncJob[str, int])


async def usual_callables(cluster: Cluster, many: list[int], words: list[str]) -> None:
    """Functions that people map besides their own."""
    assert_type(await cluster.map(str, many), list[str])
    assert_type(await cluster.map(float, words), list[float])
    assert_type(await cluster.map(str.upper, words), list[str])
    assert_type(await cluster.map(math.sqrt, [1.0]), list[float])
    await cluster.map(math.sqrt, many)
    await cluster.map(json.loads, words)
    await cluster.map(Path, words)
    await cluster.map(operator.itemgetter("year"), [{"year": 1}])
    await cluster.map(operator.attrgetter("size"), [Box(1)])
    assert_type(await cluster.map(Box, many), list[Box])
    assert_type(await cluster.map(Box.of, many), list[Box])
    assert_type(await cluster.map(Box.grown, [Box(1)]), list[Box])
    assert_type(await cluster.map(Box(1).plus, many), list[int])
    assert_type(await cluster.map(Box(1).plus, many, kwargs={"twice": True}), list[int])
    assert_type(await cluster.map(Stack([1]).pushed, [1]), list[list[int]])
    assert_type(await cluster.map(decorated_twice, many), list[str])
    assert_type(await cluster.map(cached, many), list[float])
    assert_type(await cluster.map(optional, [1, None]), list[int | None])
    movies: list[Movie] = [{"year": 1}]
    assert_type(await cluster.map(year, movies), list[int])
    assert_type(cluster.stream(year, movies), Stream[Movie, int])
    assert_type(await cluster.map(of_pair, zip(many, words, strict=True)), list[str])
    assert_type(await cluster.map(of_pair, enumerate(words)), list[str])
    assert_type(
        await cluster.map(lambda pair: pair[0] + pair[1], zip(many, many, strict=True)), list[int]
    )
    assert_type(await cluster.map(lambda box: box.size, [Box(1)]), list[int])


def report(progress: Progress) -> None:
    assert_type(progress.total, int | None)


async def streams(cluster: Cluster) -> None:
    assert_type(cluster.stream(power, [1], progress=report), Stream[int, int])
    assert_type(cluster.stream(is_prime, [1]), Stream[int, bool])
    assert_type(cluster.stream(power, [1], kwargs={"exponent": 2}, ordered=True), Stream[int, int])
    assert_type(cluster.stream("is_prime", ["a"]), Stream[str, Any])
    assert_type(cluster.stream(lambda n: str(n), [1]), Stream[int, str])
    assert_type(cluster.stream(is_prime, [1], max_failed=3), Stream[int, bool])
    assert_type(cluster.stream(is_prime, [1], values=False), Stream[int, bool | None])
    async with cluster.stream(is_prime, numbers()) as stream:
        async for outcome in stream:
            assert_type(outcome, Outcome[int, bool])
            assert_type(outcome.item, int)
            assert_type(outcome.value, bool)
            assert_type(outcome.tries, int)


async def jobs(cluster: Cluster) -> None:
    job = await cluster.submit(is_prime, [1], key="k", ttl=60)
    assert_type(job, Job[int, bool])
    assert_type(await job, list[bool])
    assert_type(await cluster.submit(power, [1], kwargs={"exponent": 2}), Job[int, int])
    assert_type(await cluster.submit("is_prime", [1]), Job[Any, Any])
    assert_type(await cluster.submit(is_prime, [1], max_failed="5%"), Job[int, bool])
    assert_type(await cluster.submit(is_prime, [1], values=False), Job[int, bool | None])
    assert_type(cluster.job("id", is_prime), Job[Any, bool])
    assert_type(cluster.job("id"), Job[Any, Any])


def blocking(cluster: SyncCluster) -> None:
    assert_type(cluster.map(is_prime, [1]), list[bool])
    assert_type(cluster.map(power, [1], kwargs={"exponent": 2}), list[int])
    assert_type(cluster.map(is_prime, [1], return_exceptions=True), list[bool | ItemError])
    assert_type(cluster.map("is_prime", [1]), list[Any])
    assert_type(cluster.map(is_prime, [1], max_failed=1), list[bool | ItemError])
    assert_type(cluster.map(is_prime, [1], values=False), list[bool | ItemError | None])
    assert_type(cluster.stream(is_prime, [1], max_failed=1), SyncStream[int, bool])
    assert_type(cluster.map(lambda n: n + 1, [1]), list[int])
    assert_type(cluster.stream(is_prime, [1]), SyncStream[int, bool])
    assert_type(cluster.stream(power, [1]), SyncStream[int, int])
    assert_type(cluster.stream("is_prime", [1]), SyncStream[int, Any])
    assert_type(cluster.submit(is_prime, [1]), SyncJob[int, bool])
    assert_type(cluster.submit(power, [1]), SyncJob[int, int])
    assert_type(cluster.submit("is_prime", [1]), SyncJob[Any, Any])
    job = cluster.job("id", is_prime)
    assert_type(job, SyncJob[Any, bool])
    assert_type(job.results(), list[bool])
    assert_type(job.results(return_exceptions=True), list[bool | ItemError])
    assert_type(job.wait(), JobStatus)
    assert_type(job.stream(), SyncJobStream[bool])
    assert_type(cluster.map(is_prime, [1], progress=report), list[bool])
    with cluster.stream(is_prime, [1], progress=True) as stream:
        assert_type(len(stream), int)
        assert_type(stream.total, int | None)
        for outcome in stream:
            assert_type(outcome, Outcome[int, bool])


def errors(cluster: SyncCluster) -> None:
    try:
        cluster.map(is_prime, [1])
    except (BadInput, Fault, Retryable) as error:
        assert_type(error, BadInput | Fault | Retryable)


def decorated() -> None:
    assert_type(is_prime(7), bool)
    assert_type(power(7, exponent=2), int)


def brokers(real: Connection, memory: MemoryConnection) -> list[Broker]:
    return [real, memory]


def executors(pool: Executor, many: list[int], words: list[str]) -> None:
    assert_type(list(pool.map(is_prime, many)), list[bool])
    assert_type(list(pool.map(len, words)), list[int])
    assert_type(list(pool.map(lambda n: str(n), many)), list[str])
    assert_type(list(pool.map(functools.partial(scaled, by=3.0), many, timeout=5)), list[float])
    assert_type(list(pool.map(divmod, many, many)), list[tuple[int, int]])
    assert_type(list(pool.map(str.replace, words, words, words)), list[str])
    assert_type(list(pool.map(lambda a, b: a + b, many, many)), list[int])
    assert_type(list(pool.map(lambda a, b, c: a + b + c, many, many, many)), list[int])
    list(pool.map(max, many, many, many, many))
    assert_type(list(pool.map(str, many)), list[str])
    assert_type(list(pool.map(Box, many)), list[Box])
    assert_type(list(pool.map(Box.grown, [Box(1)])), list[Box])
    assert_type(list(pool.map(cached, many)), list[float])
    list(pool.map(operator.itemgetter(0), words))
    list(pool.map(max, *[many, many]))
    assert_type(pool.submit(Box, size=1).result(), Box)
    assert_type(pool.submit(cached, 1).result(), float)
    assert_type(pool.submit(functools.partial(power, exponent=2), 7).result(), int)
    assert_type(pool.submit(is_prime, 7).result(), bool)
    assert_type(pool.submit(power, 7, exponent=2).result(), int)
    general: futures.Executor = pool
    assert_type(list(general.map(is_prime, many)), list[bool])
