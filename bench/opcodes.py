"""Count the opcodes of a request: ``python -m bench.opcodes [CHECKOUT]``.

A steady measure on a machine that others use, too: how many instructions of Python the gateway, the
agent and the workers run for one ``POST /map`` of an empty item, and in which functions. What C
does between them is not in it. Tracing slows a process fifty times, so requests a second mean
nothing here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import uvloop

from .servers import ROOT, Server, gateway_server, processes
from .wire import hammer, request

PARTS = ("gateway", "agent", "workers")
CONNECTIONS = (1, 16)

Row = tuple[str, float, float]  # A function, its opcodes, its calls.


async def _counted(
    processes: Sequence[psutil.Process], server: Server, counts: Path, load: Load
) -> list[Row]:
    """Count in all of these processes at once."""
    for process in processes:
        process.send_signal(signal.SIGUSR1)
    found = await asyncio.to_thread(load.run, server)
    for process in processes:
        process.send_signal(signal.SIGUSR2)
    opcodes, calls = Counter[str](), Counter[str]()
    for process in processes:
        path = counts / str(process.pid)
        # Another process writes it.
        while not path.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for name, steps, entries in json.loads(path.read_text()):
            opcodes[name] += steps
            calls[name] += entries
        path.unlink()
    return [(name, opcodes[name] / found, calls[name] / found) for name in calls]


class Load:
    """Requests of one empty item, for some seconds."""

    def __init__(self, connections: int, seconds: float) -> None:
        self.connections = connections
        self._seconds = seconds

    def run(self, server: Server) -> int:
        """Return the number of requests that were answered."""
        message = request(server.port, "/map/nothing", b"[7]")
        found = hammer(server.port, message, b"[7]", self.connections, self._seconds)
        return max(1, len(found.latencies))


async def main() -> None:
    """Count, and print a table of the processes and one of their functions."""
    parser = argparse.ArgumentParser(prog="python -m bench.opcodes", description=__doc__)
    parser.add_argument("checkout", type=Path, nargs="?", help="another checkout's root")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each of six loads (6)")
    parser.add_argument("--functions", type=int, default=0, help="rows of functions (none)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if chosen.checkout is not None:
            _run_in(chosen.checkout.resolve(), sys.argv[1:], str(chosen.checkout), directory)
            return
        environment = {
            "BENCH_OPCODES": directory,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "bench/traced"), str(ROOT))),
            "JETMAP_ACCESS_LOG": "0",
        }
        print(
            "| opcodes, calls of a request | one connection | 16 connections |\n| --- | --- | --- |"
        )
        async with gateway_server(Path(directory), environment) as server:
            loads = [Load(count, chosen.seconds) for count in CONNECTIONS]
            for load in loads:
                await asyncio.to_thread(load.run, server)
            found = processes(server)
            for part in PARTS:
                counted = [
                    await _counted(found[part], server, Path(directory), load) for load in loads
                ]
                print(f"| {part:27} |", " | ".join(map(_total, counted)), "|", flush=True)
                for name, opcodes, calls in sorted(counted[-1], key=lambda row: -row[1])[
                    : chosen.functions
                ]:
                    print(f"| {name.rpartition('/')[2]} | | {opcodes:.0f}, {calls:.2f} |")


def _total(rows: list[Row]) -> str:
    return f"{sum(row[1] for row in rows):,.0f}, {sum(row[2] for row in rows):.0f}"


def _run_in(checkout: Path, arguments: list[str], name: str, directory: str) -> None:
    """Count in another checkout, with its Python and this benchmark."""
    command = [str(checkout / ".venv/bin/python"), "-m", "bench.opcodes"]
    command += [argument for argument in arguments if argument != name]
    subprocess.run(command, check=True, cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)})


if __name__ == "__main__":
    uvloop.run(main())
