"""Calls that type checkers reject, on every line with an ignore and on no other. Never run.

Both checkers fail on an ignore that is not needed. mypy knows only a partial's result.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

from jetmap import Cluster, Executor, SyncCluster, task


@task
def is_prime(n: int) -> bool:
    return n > 1


@task
def power(n: int, *, exponent: int) -> int:
    return n * exponent


class Model:
    def predict(self, x: float) -> str:
        return str(x)


@task(retries=1, retry_on=(int,))  # type: ignore
def wrong_class(n: int) -> int:
    return n


@task(retries="3")  # type: ignore
def wrong_count(n: int) -> int:
    return n


@task(batch=64)  # type: ignore
def no_list(n: int) -> int:
    return n


@task(batch=64)  # type: ignore
def no_list_of_values(many: list[int]) -> int:
    return len(many)


@task(batch=64)  # type: ignore
def two_results(many: list[int]) -> tuple[list[int], list[int]]:
    return many, many


@task(linger=0.1)  # type: ignore
def no_batch(n: int) -> int:
    return n


@task(batch=64)
def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def batches(cluster: Cluster, sync: SyncCluster) -> None:
    await cluster.map(lengths, [1])  # type: ignore
    await cluster.map(lengths, "a", values=1)  # type: ignore
    cluster.stream(lengths, [1])  # type: ignore
    await cluster.submit(lengths, [1])  # type: ignore
    sync.map(lengths, [1])  # type: ignore
    lengths("a")  # type: ignore


async def words() -> AsyncIterator[str]:
    yield "a"


async def maps(cluster: Cluster) -> None:
    await cluster.map(is_prime, ["x"])  # type: ignore
    await cluster.map(is_prime, "12")  # type: ignore
    await cluster.map(is_prime, words())  # type: ignore
    await cluster.map(is_prime, [1, None])  # type: ignore
    await cluster.map(is_prime, 7)  # type: ignore
    await cluster.map(power, ["x"], kwargs={"exponent": 2})  # type: ignore
    await cluster.map(power, [1], exponent=2)  # type: ignore
    await cluster.map(is_prime, ["x"], return_exceptions=True)  # type: ignore
    await cluster.map(is_prime, ["x"], max_failed=5)  # type: ignore
    await cluster.map(is_prime, ["x"], values=False)  # type: ignore
    await cluster.map(is_prime, [1], max_failed=0.05)  # type: ignore
    await cluster.map(is_prime, [1], progress=7)  # type: ignore
    await cluster.map(is_prime, [1], progress=str.upper)  # type: ignore
    await cluster.map(len, [1])  # type: ignore
    await cluster.map(Model().predict, ["x"])  # type: ignore
    await cluster.map(functools.partial(power, exponent=2), ["x"])  # pyright: ignore
    await cluster.map(lambda: 1, [1])  # type: ignore
    await cluster.map([1], is_prime)  # type: ignore
    await cluster.map(is_prime)  # type: ignore
    wrong: list[str] = await cluster.map(is_prime, [1])  # type: ignore
    print(wrong)


async def others(cluster: Cluster) -> None:
    cluster.stream(is_prime, ["x"])  # type: ignore
    cluster.stream(power, ["x"])  # type: ignore
    cluster.stream(is_prime, ["x"], max_failed=5)  # type: ignore
    cluster.stream(len, [1])  # type: ignore
    cluster.stream(Model().predict, ["x"])  # type: ignore
    cluster.stream(is_prime, words())  # type: ignore
    await cluster.submit(is_prime, ["x"])  # type: ignore
    await cluster.submit(power, ["x"])  # type: ignore
    await cluster.submit(is_prime, ["x"], values=False)  # type: ignore
    await cluster.submit(len, [1])  # type: ignore
    await cluster.job("j").update(max_paralel=1)  # type: ignore
    await cluster.job("j").update(labels={"a": 1})  # type: ignore
    for value in cluster.map(is_prime, [1]):  # type: ignore
        print(value)


def blocking(cluster: SyncCluster) -> None:
    cluster.map(is_prime, ["x"])  # type: ignore
    cluster.map(is_prime, ["x"], max_failed=5)  # type: ignore
    cluster.map(len, [1])  # type: ignore
    cluster.map(power, ["x"])  # type: ignore
    cluster.map(is_prime, words())  # type: ignore
    cluster.stream(is_prime, ["x"])  # type: ignore
    cluster.submit(is_prime, ["x"])  # type: ignore


def executors(pool: Executor) -> None:
    pool.map(is_prime, ["x"])  # type: ignore
    pool.map(pow, [1])  # type: ignore
    pool.map(is_prime, [1], [2])  # type: ignore
    pool.map(str.replace, ["a"], ["b"], [1])  # type: ignore
    pool.submit(is_prime, "x")  # type: ignore
    pool.submit(power, 1)  # type: ignore
    Executor("4")  # type: ignore
