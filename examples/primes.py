"""Find the primes among large numbers, on every core, and show them as they are found.

    python examples/primes.py                  the primes among 4,000 numbers from 10¹² on
    python examples/primes.py 1000000 20000    among 20,000 numbers from a million on

The workers import the function from this file.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

from jetmap import Cluster, task


@task
def smallest_factor(n: int) -> int:
    """Find the smallest factor of ``n`` above 1 by trial division; that of a prime is itself."""
    if n < 2:
        raise ValueError(f"{n} has no factor above 1")
    for divisor in (2, 3):
        if n % divisor == 0:
            return divisor
    divisor = 5
    while divisor * divisor <= n:
        if n % divisor == 0:
            return divisor
        if n % (divisor + 2) == 0:
            return divisor + 2
        divisor += 6
    return n


@task
def is_prime(n: int) -> bool:
    """Say whether ``n`` is a prime number."""
    return n > 1 and smallest_factor(n) == n


async def main(first: int = 10**12, count: int = 4_000) -> None:
    numbers = range(first, first + count)
    began = perf_counter()
    found: list[int] = []
    async with Cluster() as cluster, cluster.stream(is_prime, numbers) as outcomes:
        async for outcome in outcomes:
            if outcome.value:
                found.append(outcome.item)
                if sys.stdout.isatty():
                    print(f"\r{len(found)} primes, now {outcome.item}", end="", flush=True)
    print(f"\r{len(found)} primes among {count} numbers from {first} on")
    if found:
        print(f"the smallest is {min(found)}, the largest is {max(found)}")
    print(f"{perf_counter() - began:.2f} s")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
