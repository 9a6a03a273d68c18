"""``python -m bench.peers``: jetmap beside its peers, in one run, in turns."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from statistics import median

import msgspec
import psutil
import uvloop

from bench import tasks, work
from bench.servers import ROOT, Server, gateway_server, pool_server
from bench.table import seconds as shown
from bench.web import Call
from bench.work import Work, turns_per_second

from .contender import Sample
from .contenders import CONTENDERS
from .rows import PeerRow, rows

QUICK = 20
CONNECTIONS = (16, 64)
LOAD_SECONDS = 2.0
# A contender that takes longer for a row is measured once.
LONG_SECONDS = 10.0

EPILOG = """\
Each contender runs in a process of its own and is warmed by the row itself, and tuned where its
users would tune it; rows named -other are warmed by items of the same function at another cost. In
each round another contender begins; one that takes over ten seconds for a row is measured once.
Figures are medians; the spread is from the least to the most. CPU is the busy time of the whole
machine, so run this on a quiet one. A contender that is not installed is left out; 'none' means
that it refused.
"""


class Process:
    """A contender's process."""

    def __init__(self, name: str, cores: int, shrink: int, speed: float) -> None:
        command = [sys.executable, "-m", "bench.peers.contender", name]
        self.name = name
        self._mark = f"BENCH_CONTENDER={name}-{os.getpid()}"
        variable, _, value = self._mark.partition("=")
        self._process = subprocess.Popen(
            [*command, str(cores), str(shrink), str(speed)],
            cwd=ROOT,
            env={**os.environ, variable: value},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def measure(self, row: str) -> Sample:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(row.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        return msgspec.json.decode(answer, type=Sample) if answer else Sample(refused="it died")

    def memory(self) -> int:
        """Return the bytes of the process and all that it started, each shared page once."""
        total = 0
        variable, _, value = self._mark.partition("=")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(variable) == value:
                    total += process.memory_full_info().pss
        return total

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Result(msgspec.Struct, frozen=True):
    """All measurements of one contender in one row."""

    row: str
    contender: str
    samples: list[Sample]
    memory: int = 0

    @property
    def refused(self) -> str:
        return next((sample.refused for sample in self.samples if sample.refused), "")

    @property
    def times(self) -> list[float]:
        return [sample.seconds for sample in self.samples]

    def cell(self, row: PeerRow, cores: int) -> str:
        if self.refused:
            return "none"
        middle = median(self.times)
        if row.kind == "one":
            return f"{shown(middle)} / {shown(median(sample.p99 for sample in self.samples))}"
        cpu = median(sample.cpu for sample in self.samples)
        spread = f"{shown(min(self.times))} to {shown(max(self.times))}"
        share = f"{row.seconds / cores / middle:.2f}, " if row.seconds else ""
        return f"{share}{shown(middle)} ({spread}), CPU {shown(cpu)}"


def installed(names: Sequence[str]) -> list[str]:
    """Return those that can be imported here, and report the others."""
    found = []
    for name in names:
        needs = CONTENDERS[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            print(f"{name}: {needs} is not installed; left out", file=sys.stderr)
        else:
            found.append(name)
    return found


def compare(chosen: argparse.Namespace, load: Work) -> list[Result]:
    """Measure every row with every contender, in turns."""
    shrink = QUICK if chosen.quick else 1
    results = []
    with ExitStack() as stack:
        processes = []
        for name in installed(chosen.contenders or list(CONTENDERS)):
            processes.append(Process(name, chosen.cores, shrink, load.speed))
            stack.callback(processes[-1].close)
        for row in chosen.rows or rows(load, shrink):
            samples: dict[str, list[Sample]] = {process.name: [] for process in processes}
            memory: dict[str, int] = {}
            for number in range(chosen.runs):
                first = number % len(processes)
                for process in processes[first:] + processes[:first]:
                    if any(sample.seconds > LONG_SECONDS for sample in samples[process.name]):
                        continue
                    samples[process.name].append(process.measure(row))
                    memory[process.name] = process.memory()
            for name, measured in samples.items():
                results.append(Result(row, name, measured, memory[name]))
                last = results[-1]
                figure = last.refused or shown(median(last.times))
                print(f"{row}: {name} {figure}", file=sys.stderr, flush=True)
    return results


async def over_http(chosen: argparse.Namespace, load: Work) -> list[str]:
    """Measure the gateway beside an app with a process pool, all items at once and cut by hand."""
    short = chosen.quick
    lines = ["| over HTTP | jetmap | gathered | cut by hand |", "| --- | --- | --- | --- |"]
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateway_server())
        pool = await stack.enter_async_context(pool_server(chosen.cores))
        sides: list[tuple[Server, str]] = [(gateway, "/map"), (pool, "/map"), (pool, "/chunked")]
        sixteen = Call(tasks.even, load.equal(16, work.STEADY))
        for connections in CONNECTIONS:
            lasting = LOAD_SECONDS / (5 if short else 1)
            measures = [
                sixteen.rate(server, connections, lasting, prefix) for server, prefix in sides
            ]
            rates = [[await measure() for measure in measures] for _ in range(chosen.runs)]
            cells = [f"{median(column):.1f} a second" for column in zip(*rates, strict=True)]
            lines.append(f"| 16 of 1.5 ms, {connections} connections | {' | '.join(cells)} |")
        lists = {
            "2,000 of 1.5 ms": Call(tasks.even, load.equal(100 if short else 2000, work.STEADY)),
            "20,000 of 15 µs": Call(tasks.tiny, load.equal(1000 if short else 20_000, work.TINY)),
            "one empty item": Call(tasks.nothing, [7]),
        }
        for title, call in lists.items():
            calls = (20 if short else 300) if title.startswith("one") else 1
            measures = [call.latency(server, calls, prefix) for server, prefix in sides]
            for measure in measures:
                await measure()
            times = [[await measure() for measure in measures] for _ in range(chosen.runs)]
            cells = [shown(median(column)) for column in zip(*times, strict=True)]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def table(results: list[Result], chosen: dict[str, PeerRow], cores: int) -> str:
    """Return the results as a Markdown table: a line a row, a column a contender."""
    names = list(dict.fromkeys(result.contender for result in results))
    lines = [f"| work | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for title in dict.fromkeys(result.row for result in results):
        row = chosen[title]
        cells = [
            result.cell(row, cores)
            for name in names
            for result in results
            if (result.row, result.contender) == (title, name)
        ]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    memory = {result.contender: result.memory for result in results}
    lines.append(f"| memory | {' | '.join(f'{memory[name] / 2**20:.0f} MiB' for name in names)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="else all")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="else all")
    parser.add_argument("--runs", type=int, default=5, help="rounds a row (5)")
    parser.add_argument("--cores", type=int, default=2, help="cores to use (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--no-http", action="store_true", help="leave the gateway out")
    parser.add_argument("--quick", action="store_true", help="few items: tries the bench itself")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.cores])
    load = Work(turns_per_second())
    known = rows(load, QUICK if chosen.quick else 1)
    if unknown := sorted(set(chosen.rows) - set(known)):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    quiet = psutil.cpu_percent(1.0)
    results = compare(chosen, load)
    print(f"Python {platform.python_version()}, {chosen.cores} cores, median of {chosen.runs}")
    print(f"The machine was {quiet:.0f} % busy before.\n")
    print(table(results, known, chosen.cores))
    if not chosen.no_http:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print("\n" + "\n".join(runner.run(over_http(chosen, load))))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
