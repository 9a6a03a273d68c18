"""``python -m bench [ROW…]``: the table of ratios, measured in one run."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import msgspec
import psutil
import uvloop

from . import library, released, web
from .batches import batches
from .bodies import between_hosts, http_million, http_payloads
from .codecs import codecs
from .crashes import crashes
from .executor import executor
from .fairness import fairness
from .grid_search import grid_search
from .jobs import jobs
from .memory import memory
from .payloads import payloads
from .pool import started_pool
from .run import Run
from .start import start
from .table import Row, markdown
from .watching import watching
from .work import Work, turns_per_second

ROWS: dict[str, Callable[[Run], Awaitable[list[Row]]]] = {
    "steady": library.steady,
    "uneven": library.uneven,
    "tiny": library.tiny,
    "prior": library.prior,
    "heavy": library.heavy,
    "one": library.one,
    "payloads": payloads,
    "http-one": web.http_one,
    "http-16": web.http_16,
    "http-steady": web.http_steady,
    "http-tiny": web.http_tiny,
    "start": start,
    "crashes": crashes,
    "memory": memory,
    "fairness": fairness,
    "jobs": jobs,
    "executor": executor,
    "batches": batches,
    "codecs": codecs,
    "joblib": grid_search,
    "http-payloads": http_payloads,
    "http-million": http_million,
    "between-hosts": between_hosts,
    "watching": watching,
}
# Rows that take minutes each, and those of bodies: not measured unless they are named.
LONG = ("executor", "joblib", "http-payloads", "http-million", "between-hosts", "watching")
QUICK = 20
BUSY = 5.0  # per cent

EPILOG = """\
Everything runs on loopback, on the first --cores cores that this process may use, and is
ended with it. Baselines and jetmap are measured in turns; figures are medians, and a ratio is
the median of the rounds' ratios. 'share of ideal' is the serial time divided by the cores and
by the time taken. The HTTP baseline is a FastAPI app that awaits run_in_executor for each item,
one after the other; 'gathered' is the same app awaiting them all at once. The pool's single
item is awaited on the caller's event loop, as jetmap's is; 'blocking' waits for it in a thread.

The exit code is 1 if a ratio is over 5 % worse than in bench/released.json, which has those of the
last release. Run the row again on a quiet machine; if it stays, compare with the commit before your
change: python -m bench.compare ../before.
"""


ROW_HELP = (
    f"of {', '.join(ROWS)}; all for every row; without one, all but {', '.join(LONG)}, "
    "which take minutes each"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=ROW_HELP)
    parser.add_argument("--runs", type=int, default=5, help="rounds a row (5)")
    parser.add_argument("--cores", type=int, default=2, help="cores to use (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--quick", action="store_true", help="few items: tries the bench itself")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target was missed")
    parser.add_argument(
        "--record", metavar="VERSION", help="keep the ratios in bench/released.json, for later runs"
    )
    chosen = parser.parse_args()
    if chosen.rows == ["all"]:
        chosen.rows = list(ROWS)
    unknown = sorted(set(chosen.rows) - set(ROWS))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if chosen.runs < 1 or chosen.cores < 1:
        parser.error("--runs and --cores are at least 1")
    if chosen.record and chosen.quick:
        parser.error("--record needs whole rows: leave out --quick")
    return chosen


async def measured(chosen: argparse.Namespace, pool: ProcessPoolExecutor, work: Work) -> list[Row]:
    """Measure the chosen rows, and report each on stderr when it is done."""
    cores = len(os.sched_getaffinity(0))
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        shrink = QUICK if chosen.quick else 1
        run = Run(stack, pool, work, cores, runs=chosen.runs, shrink=shrink)
        for name in chosen.rows or [name for name in ROWS if name not in LONG]:
            began = perf_counter()
            print(f"{name} …", end=" ", file=sys.stderr, flush=True)
            rows += await ROWS[name](run)
            print(f"{perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    chosen = arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.cores])
    cores = len(os.sched_getaffinity(0))
    busy = psutil.cpu_percent(1.0)
    with started_pool(cores) as pool:
        work = Work(turns_per_second())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(measured(chosen, pool, work))
    print(f"Python {platform.python_version()}, {cores} cores, median of {chosen.runs}", end="")
    print(f"; the machine was {busy:.0f} % busy before\n" if busy > BUSY else "\n")
    print(markdown(rows))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    if chosen.record:
        released.record(rows, chosen.record, cores)
        return 0
    before = None if chosen.quick else released.read()
    fallen = released.fallen(rows, before) if before is not None and before.cores == cores else []
    for text in fallen:
        print(f"over {released.TOLERANCE:.0%} worse than released: {text}", file=sys.stderr)
    return 1 if fallen or (chosen.check and not all(row.is_met for row in rows)) else 0


if __name__ == "__main__":
    sys.exit(main())
