"""Compare this checkout with another: ``python -m bench.compare CHECKOUT [ROW…]``.

Both run side by side, each with its own Python (``CHECKOUT/.venv/bin/python``), and measure
shortened rows in turns, so that a noisy machine disturbs both alike. The benchmark's code is
this checkout's for both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Self

import msgspec
import psutil
import uvloop

from jetmap import Cluster, Executor

from . import tasks, work
from .executor import time_submits
from .measure import Measure
from .pool import time_map, time_single
from .servers import ROOT, gateway_server
from .web import Call
from .work import Work, turns_per_second

ALLOWED = 1.03  # A row is worse if its median ratio is above this and the interval excludes 1.
RESAMPLES = 2000
LOAD_SECONDS = 0.6
MARK = "BENCH_SIDE"  # Variable of all processes of one side.


class Sample(msgspec.Struct):
    """One measurement. cost: seconds, for rates of one request. cpu: seconds of all processes."""

    cost: float
    cpu: float


async def _measures(stack: AsyncExitStack, speed: float) -> dict[str, Measure]:
    cluster = await stack.enter_async_context(Cluster(tasks=["bench.tasks"]))
    gateway = await stack.enter_async_context(gateway_server(Path.cwd()))
    load = Work(speed)

    def mapped(f: Callable[[int], int], items: Sequence[int], prior: Sequence[int] = ()) -> Measure:
        expected = [f(item) for item in items]

        async def measure() -> float:
            if prior:
                await cluster.map(f, prior)
            began = perf_counter()
            values = await cluster.map(f, items)
            took = perf_counter() - began
            if values != expected:
                raise AssertionError("jetmap's values differ from [f(x) for x in items]")
            return took

        return measure

    def payloads(size: int, count: int) -> Measure:
        items: list[bytes] = []  # Made when they are first needed.

        async def measure() -> float:
            items.extend(os.urandom(size) for _ in range(count - len(items)))
            began = perf_counter()
            values = await cluster.map(tasks.send_back, items)
            took = perf_counter() - began
            if values != items:
                raise AssertionError("other bytes came back")
            return took

        return measure

    async def one() -> float:
        times = []
        for n in range(300):
            began = perf_counter()
            await cluster.map(tasks.nothing, [n])
            times.append(perf_counter() - began)
        return median(times)

    def rated(call: Call, connections: int) -> Measure:
        measure = call.rate(gateway, connections, LOAD_SECONDS)

        async def inverse() -> float:
            return 1 / await measure()

        return inverse

    executors: list[Executor] = []  # Started by the first row that needs it.

    def called(time: Callable[[Executor], float]) -> Measure:
        async def measure() -> float:
            if not executors:
                executors.append(Executor(len(os.sched_getaffinity(0))))
                stack.callback(executors[0].shutdown)
            return await asyncio.to_thread(time, executors[0])

        return measure

    def submits(seconds: float, count: int) -> Measure:
        return called(lambda pool: time_submits(pool, max(1, round(speed * seconds)), count))

    steady, uneven = load.equal(1000, work.STEADY), load.lognormal(200, work.UNEVEN)
    empty, tiny_items = Call(tasks.nothing, [7]), load.equal(20_000, work.TINY)
    return {
        "steady": mapped(tasks.even, load.equal(400, work.STEADY)),
        "uneven": mapped(tasks.uneven, load.lognormal(100, work.UNEVEN)),
        "tiny": mapped(tasks.tiny, tiny_items),
        "one": one,
        "prior": mapped(tasks.has_no_divisor, work.primes(32, 10**11), range(1000)),
        "heavy-early": mapped(tasks.heavy, load.pareto(100, work.HEAVY, long_at=5)),
        "heavy-last": mapped(tasks.heavy, load.pareto(100, work.HEAVY, long_at=99)),
        "http-one": empty.latency(gateway, 300),
        "http-16": rated(empty, 16),
        "http-steady": rated(Call(tasks.even, load.equal(16, work.STEADY)), 1),
        "http-tiny": Call(tasks.tiny, tiny_items).latency(gateway, 3),
        "payload-1kB": payloads(1_000, 10_000),
        "payload-100kB": payloads(100_000, 500),
        "payload-8MB": payloads(8_000_000, 12),
        "executor-steady": called(lambda pool: time_map(pool, tasks.even, steady, 1)),
        "executor-uneven": called(lambda pool: time_map(pool, tasks.uneven, uneven, 1)),
        "executor-tiny": called(lambda pool: time_map(pool, tasks.tiny, tiny_items, 1)),
        "submits-0ms": submits(0.0, 4_000),
        "submits-0.2ms": submits(0.0002, 2_000),
        "submits-2ms": submits(0.002, 300),
        "submits-10ms": submits(0.01, 60),
        "submit-one": called(lambda pool: time_single(pool, tasks.nothing, 300)),
    }


ROWS = (
    "steady",
    "uneven",
    "tiny",
    "one",
    "prior",
    "heavy-early",
    "heavy-last",
    "http-one",
    "http-16",
    "http-steady",
    "http-tiny",
    "payload-1kB",
    "payload-100kB",
    "payload-8MB",
    "executor-steady",
    "executor-uneven",
    "executor-tiny",
    "submits-0ms",
    "submits-0.2ms",
    "submits-2ms",
    "submits-10ms",
    "submit-one",
)


async def _side(speed: float) -> None:
    """Measure a row for each line on standard input; print a ``Sample`` for each."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with AsyncExitStack() as stack:
        measures = await _measures(stack, speed)
        while name := (await reader.readline()).decode().strip():
            before = _processor_seconds()
            cost = await measures[name]()
            print(
                msgspec.json.encode(Sample(cost, _processor_seconds() - before)).decode(),
                flush=True,
            )


def _processor_seconds() -> float:
    """Processor time so far of this side, whose processes all have the variable ``MARK``."""
    mine, total = f"{MARK}={os.environ[MARK]}".encode(), 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if mine in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                times = process.cpu_times()
                total += times.user + times.system
    return total


class Side:
    """A checkout that measures rows in a process of its own."""

    def __init__(self, checkout: Path, speed: float, directory: str) -> None:
        command = [str(checkout / ".venv/bin/python"), "-m", "bench.compare", "--side", str(speed)]
        self._process = subprocess.Popen(
            command,
            # Neither checkout's configuration applies, and neither checkout's own benchmark.
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), MARK: secrets.token_hex(8)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, row: str) -> Sample:
        """Measure a row once. Raises RuntimeError if the process ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{row}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the side {self._process.args!r} ended during {row}")
        return msgspec.json.decode(line, type=Sample)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The bootstrapped 95 % interval of the median."""
    draw = random.Random(1)
    medians = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


def _report(row: str, pairs: Sequence[tuple[Sample, Sample]]) -> bool:
    """Print a row's ratios, this checkout's above the other's. Returns whether it is worse."""
    ratios = [ours.cost / other.cost for ours, other in pairs]
    cpu = median(ours.cpu for ours, _ in pairs) / median(other.cpu for _, other in pairs)
    medians = median(ours.cost for ours, _ in pairs) / median(other.cost for _, other in pairs)
    low, high = _interval(ratios)
    print(
        f"| {row:<15} | {median(ratios):.3f} | {low:.3f}-{high:.3f} | {medians:.3f} | {cpu:.3f} |",
        flush=True,
    )
    return median(ratios) > ALLOWED and low > 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("checkout", type=Path, nargs="?", help="the other checkout's root")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; else all")
    parser.add_argument("--pairs", type=int, default=10, help="pairs a row (10)")
    parser.add_argument("--side", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is not None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_side(chosen.side))
        return 0
    if chosen.checkout is None:
        parser.error("name the root of the checkout to compare with")
    unknown = sorted(set(chosen.rows) - set(ROWS))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    speed, worse = turns_per_second(), []
    with ExitStack() as stack:
        ours, other = (
            stack.enter_context(
                Side(root, speed, stack.enter_context(tempfile.TemporaryDirectory()))
            )
            for root in (ROOT, chosen.checkout.resolve())
        )
        print("| row             | ratio | 95 %        | of medians | processor time |")
        print("| --------------- | ----- | ----------- | ---------- | -------------- |", flush=True)
        for row in chosen.rows or ROWS:
            pairs: list[tuple[Sample, Sample]] = []
            for n in range(chosen.pairs + 1):
                first, second = (ours, other) if n % 2 else (other, ours)
                samples = first.measure(row), second.measure(row)
                if n:  # The first pair only warms up.
                    pairs.append(samples if first is ours else (samples[1], samples[0]))
            if _report(row, pairs):
                worse.append(row)
    if worse:
        print(f"more than 3 % worse: {', '.join(worse)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
