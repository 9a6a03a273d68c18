"""Show where the time of a cold script goes: ``python -m bench.cold``.

A script with a ``Cluster()`` of its own runs from nothing to its end, and each of its processes
writes the times of its steps. The table has their medians over all runs, since the script's start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .servers import ROOT

SCRIPT = """\
import asyncio
from jetmap import Cluster, task
@task
def double(n: int) -> int:
    return 2 * n
async def main() -> None:
    async with Cluster(cores=2) as cluster:
        print(sum(await cluster.map(double, [1, 2, 3])))
if __name__ == "__main__":
    asyncio.run(main())
"""
# What each process does, in the order of a quiet machine. A point counts where it is first reached.
STEPS = {
    "script: Python runs": "script starts",
    "script: `Cluster` is imported, its loop runs": "jetmap.client.cluster:Cluster._start<",
    "script: begins to join a keeper": "jetmap.embedded.membership:join_keeper<",
    "script: has started the keeper": "jetmap.embedded.membership:Membership._start_keeper>",
    "keeper: Python runs": "keeper starts",
    "keeper: is imported": "jetmap.embedded.keeper:main<",
    "keeper: starts nats-server": "jetmap.nats.server:NatsServer.start<",
    "keeper: nats-server is ready": "jetmap.nats.server:NatsServer.start>",
    "script: has imported the rest, begins to connect": "script connects",
    "script: is connected": "script connected",
    "keeper: has imported the agent": "jetmap.embedded.agent_start:_import_agent>",
    "keeper: is connected": "keeper connected",
    "keeper: starts the first worker": "jetmap.worker.spawn:spawn_worker<",
    "worker: Python runs": "worker starts",
    "worker: is imported": "jetmap.worker.main:main<",
    "worker: has imported the script": "jetmap.worker.functions:WorkerFunctions.load>",
    "keeper: a worker is ready": "jetmap.agent.slot:Slot._on_ready<",
    "script: the cluster is started": "jetmap.client.session:Session._wait_for_workers>",
    "worker: computes the first chunk": "jetmap.worker.main:_Worker._compute<",
    "script: has the values": "jetmap.client.cluster:Cluster.map>",
    "script: the cluster is closed": "jetmap.client.session:Session.close>",
}
_SHARED = ("jetmap.nats.connection:Connection.open<", "jetmap.nats.connection:Connection.open>")
_NAMES = {_SHARED[0]: "connects", _SHARED[1]: "connected", "starts": "starts"}
_END = "script: has ended"


class Step(NamedTuple):
    """A step in milliseconds since the script's start. cpu: of its process so far, if known."""

    at: float
    cpu: float | None


def run(python: str, directory: str, points: Sequence[str]) -> dict[str, Step]:
    """Run the script once; return when it reached each step."""
    script, stamps = Path(directory) / "script.py", Path(directory) / "stamps"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "bench/traced"),
        "BENCH_STAMPS": str(stamps),
        "BENCH_POINTS": " ".join(points),
    }
    began = time.monotonic_ns()
    process = subprocess.Popen(
        [python, str(script)], cwd=directory, env=environment, stdout=subprocess.PIPE
    )
    printed, _ = process.communicate(timeout=120)
    ended = time.monotonic_ns()
    if process.returncode or printed.split() != [b"12"]:
        raise RuntimeError(f"the script ended with {process.returncode} and printed {printed!r}")
    found = {_END: Step((ended - began) / 1e6, None)}
    lines = [line.split() for line in stamps.read_text().splitlines()]
    keeper = next(pid for *_, pid, point in lines if point == "jetmap.embedded.keeper:main<")
    for at, cpu, pid, point in lines:
        part = "script" if pid == str(process.pid) else "keeper" if pid == keeper else "worker"
        if point in _NAMES:
            # A keeper's first process writes its start, and is replaced by its own child.
            if point == "starts" and part == "worker" and "keeper starts" not in found:
                part = "keeper"
            point = f"{part} {_NAMES[point]}"
        found.setdefault(point, Step((int(at) - began) / 1e6, int(cpu) / 1e6))
    return found


def main() -> None:
    """Run the script several times, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cold", description=__doc__)
    parser.add_argument("checkout", type=Path, nargs="?", help="another checkout's root")
    parser.add_argument("--runs", type=int, default=9, help="scripts (9)")
    chosen = parser.parse_args()
    points = [*(point for point in STEPS.values() if ":" in point), *_SHARED]
    roots = [ROOT] if chosen.checkout is None else [ROOT, chosen.checkout.resolve()]
    runs: dict[Path, list[dict[str, Step]]] = {root: [] for root in roots}
    for _ in range(chosen.runs):
        for root in roots:
            # In a directory of its own: for two seconds, the keeper before serves the last one.
            with tempfile.TemporaryDirectory() as directory:
                runs[root].append(run(str(root / ".venv/bin/python"), directory, points))
    sides = " here | CPU | there | CPU |" if len(roots) > 1 else " ms | CPU |"
    print(f"| step |{sides}\n| --- |{' ---: | ---: |' * len(roots)}")
    for name, point in [*STEPS.items(), (_END, _END)]:
        cells = [_cell([each[point] for each in runs[root] if point in each]) for root in roots]
        print(f"| {name:50} | {' | '.join(cells)} |")


def _cell(steps: list[Step]) -> str:
    if not steps:
        return "    - |    -"
    cpu = [step.cpu for step in steps if step.cpu is not None]
    last = f"{median(cpu):4.0f}" if cpu else "    "
    return f"{median(step.at for step in steps):5.0f} | {last}"


if __name__ == "__main__":
    sys.exit(main())
