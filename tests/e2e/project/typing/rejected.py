"""Calls that type checkers reject, on every line that says so and on no other. Never run.

mypy knows only a partial's result.
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


@task(retries=1, retry_on=(int,))  # rejected
def wrong_class(n: int) -> int:
    return n


@task(retries="3")  # rejected
def wrong_count(n: int) -> int:
    return n


async def words() -> AsyncIterator[str]:
    yield "a"


async def maps(cluster: Cluster) -> None:
    await cluster.map(is_prime, ["x"])  # rejected
    await cluster.map(is_prime, "12")  # rejected
    await cluster.map(is_prime, words())  # rejected
    await cluster.map(is_prime, [1, None])  # rejected
    await cluster.map(is_prime, 7)  # rejected
    await cluster.map(power, ["x"], kwargs={"exponent": 2})  # rejected
    await cluster.map(power, [1], exponent=2)  # rejected
    await cluster.map(is_prime, ["x"], return_exceptions=True)  # rejected
    await cluster.map(is_prime, ["x"], max_failed=5)  # rejected
    await cluster.map(is_prime, ["x"], values=False)  # rejected
    await cluster.map(is_prime, [1], max_failed=0.05)  # rejected
    await cluster.map(is_prime, [1], progress=7)  # rejected
    await cluster.map(is_prime, [1], progress=len)  # rejected
    await cluster.map(len, [1])  # rejected
    await cluster.map(Model().predict, ["x"])  # rejected
    await cluster.map(functools.partial(power, exponent=2), ["x"])  # rejected by pyright
    await cluster.map(lambda: 1, [1])  # rejected
    await cluster.map([1], is_prime)  # rejected
    await cluster.map(is_prime)  # rejected
    wrong: list[str] = await cluster.map(is_prime, [1])  # rejected
    print(wrong)


async def others(cluster: Cluster) -> None:
    cluster.stream(is_prime, ["x"])  # rejected
    cluster.stream(power, ["x"])  # rejected
    cluster.stream(is_prime, ["x"], max_failed=5)  # rejected
    cluster.stream(len, [1])  # rejected
    cluster.stream(Model().predict, ["x"])  # rejected
    cluster.stream(is_prime, words())  # rejected
    await cluster.submit(is_prime, ["x"])  # rejected
    await cluster.submit(power, ["x"])  # rejected
    await cluster.submit(is_prime, ["x"], values=False)  # rejected
    await cluster.submit(len, [1])  # rejected
    for value in cluster.map(is_prime, [1]):  # rejected
        print(value)


def blocking(cluster: SyncCluster) -> None:
    cluster.map(is_prime, ["x"])  # rejected
    cluster.map(is_prime, ["x"], max_failed=5)  # rejected
    cluster.map(len, [1])  # rejected
    cluster.map(power, ["x"])  # rejected
    cluster.map(is_prime, words())  # rejected
    cluster.stream(is_prime, ["x"])  # rejected
    cluster.submit(is_prime, ["x"])  # rejected


def executors(pool: Executor) -> None:
    pool.map(is_prime, ["x"])  # rejected
    pool.map(pow, [1])  # rejected
    pool.map(is_prime, [1], [2])  # rejected
    pool.submit(is_prime, "x")  # rejected
    pool.submit(power, 1)  # rejected
    Executor("4")  # rejected
