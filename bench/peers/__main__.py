"""``python -m bench.peers``: jetmap beside its peers, in one run, in turns."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import platform
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from statistics import median
from time import monotonic

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
# Seconds after which a contender is not measured again for a row, with its warming up and tuning.
ROW_SECONDS = 15.0
# Seconds of one measurement, with warming up and tuning, after which a contender is ended.
MOST_SECONDS = 120.0
MARK = "BENCH_CONTENDER"  # Variable of a contender's processes.
MINUTES = 20.0  # After which each contender is measured once for each row that is left.

EPILOG = """\
Each contender runs in a process of its own and is warmed by the row itself, and tuned where its
users would tune it; rows named -other are warmed by items of the same function at another cost. In
each round another contender begins. One that has taken 15 seconds for a row is not measured again
for it, and one that takes over ten seconds for its first map, not warmed, has that measured. After
120 seconds it is ended, and begins anew with the next row. Figures are medians; the spread is from
the least to the most. CPU is the busy time of the whole machine, so run this on a quiet one. A
contender that is not installed is left out; 'none' means that it refused.
"""


class Process:
    """A contender's process."""

    def __init__(self, name: str, cores: int, shrink: int, speed: float) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "bench.peers.contender", name]
        self._command += [str(cores), str(shrink), str(speed)]
        self._mark = f"{name}-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None

    def measure(self, row: str) -> Sample:
        """Measure a row once. A process that has ended is started again."""
        process = self._process = self._process or subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={**os.environ, MARK: self._mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        self._say(row)
        if not select.select([process.stdout], [], [], MOST_SECONDS)[0]:
            self._kill()
            return Sample(refused=f"over {MOST_SECONDS:g} s", spent=MOST_SECONDS)
        if answer := process.stdout.readline():
            return msgspec.json.decode(answer, type=Sample)
        self._kill()
        return Sample(refused="it died")

    def end_row(self) -> None:
        """Let it drop the items of the row in progress."""
        self._say("")

    def memory(self) -> int:
        """Return the bytes of the process and all that it started, each shared page once."""
        total = 0
        for process in self._processes():
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
        self._kill()

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()

    def _processes(self) -> list[psutil.Process]:
        """Return the process and all that it started, if they still run."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    def _kill(self) -> None:
        """End what is left of it."""
        if self._process is None:
            return
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self._process = None


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
        if any(sample.is_cold for sample in self.samples):
            return f"{shown(middle)} (cold, once)"
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


def is_enough(samples: Sequence[Sample]) -> bool:
    """Return whether a contender is not measured again for a row."""
    if any(sample.refused or sample.is_cold for sample in samples):
        return True
    return sum(sample.spent for sample in samples) >= ROW_SECONDS


def compare(chosen: argparse.Namespace, load: Work, late: float) -> list[Result]:
    """Measure every row with every contender, in turns; once each from the time ``late`` on."""
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
                    before = samples[process.name]
                    if before and (is_enough(before) or monotonic() > late):
                        continue
                    before.append(process.measure(row))
                    memory[process.name] = process.memory()
            for process in processes:
                process.end_row()
            for name, measured in samples.items():
                results.append(Result(row, name, measured, memory[name]))
                last = results[-1]
                figure = last.refused or shown(median(last.times))
                print(f"{row}: {name} {figure}", file=sys.stderr, flush=True)
    return results


async def over_http(chosen: argparse.Namespace, load: Work, late: float) -> list[str]:
    """Measure the gateway beside an app with a process pool, all items at once and cut by hand."""
    short = chosen.quick
    runs = chosen.runs if monotonic() < late else 1
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
            rates = [[await measure() for measure in measures] for _ in range(runs)]
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
            times = [[await measure() for measure in measures] for _ in range(runs)]
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
    # Of the last row after which it still ran.
    memory = {result.contender: result.memory for result in results if result.memory}
    sizes = [f"{memory.get(name, 0) / 2**20:.0f} MiB" for name in names]
    lines.append(f"| memory | {' | '.join(sizes)} |")
    refused = [result for result in results if result.refused]
    lines += [""] * bool(refused)
    lines += [f"none: {result.contender}, {result.row}: {result.refused}" for result in refused]
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
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help=f"after which the rows that are left are measured once ({MINUTES:.0f})",
    )
    parser.add_argument("--no-http", action="store_true", help="leave the gateway out")
    parser.add_argument("--quick", action="store_true", help="few items: tries the bench itself")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.cores])
    load = Work(turns_per_second())
    known = rows(load, QUICK if chosen.quick else 1)
    if unknown := sorted(set(chosen.rows) - set(known)):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    quiet = psutil.cpu_percent(1.0)
    late = monotonic() + chosen.minutes * 60
    results = compare(chosen, load, late)
    print(f"Python {platform.python_version()}, {chosen.cores} cores, median of {chosen.runs}")
    print(f"The machine was {quiet:.0f} % busy before.\n")
    print(table(results, known, chosen.cores))
    if not chosen.no_http:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print("\n" + "\n".join(runner.run(over_http(chosen, load, late))))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
