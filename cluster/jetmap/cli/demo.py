"""``jetmap demo``: everything on this machine, over HTTP, beside the same on one core."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import psutil
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from jetmap.demo.http import DemoError, Gateway
from jetmap.demo.work import Sample, Work, prime_search, sample, source_metrics
from jetmap.settings import Settings

from .installation import FAREWELL, Installation
from .options import takes
from .progress import Bar
from .signals import LEAVE_SECONDS, Asked, Stop, run_heeding
from .tether import TETHER

TASKS = "jetmap.demo.tasks"
NOTABLE = 0.1
T = TypeVar("T")


@dataclass
class Run:
    """One map as it went.

    seconds: from the request to the last result; first: to the first. busy: seconds of CPU that
    this machine spent meanwhile, on whatever.
    """

    work: Work
    seconds: float
    first: float
    busy: float
    notes: list[str]


@takes("cores")
def demo(settings: Settings) -> None:
    """Everything on this machine, a real map over HTTP with live progress.

    Starts a NATS server, a worker per core and a gateway on free ports; measures every Python
    file of this installation and searches for primes, with results arriving as they are
    found; then does the same on one core to compare. Takes about a minute and leaves nothing
    behind.
    """
    run_heeding(_demonstrate(settings), patience=2 * FAREWELL + LEAVE_SECONDS)


async def _demonstrate(settings: Settings) -> None:
    stop = Stop()
    console = Console(soft_wrap=True, highlight=False)
    try:
        # It stops what it has started before it ends.
        await stop.unless_asked(_work(own(settings), console))
    except Asked:
        raise KeyboardInterrupt from None


def own(settings: Settings) -> Settings:
    """Settings for a private installation, whatever else is configured."""
    fresh = {name: field.get_default() for name, field in Settings.model_fields.items()}
    kept = ("cores", "start_timeout")
    ours = {
        "tasks": [TASKS],
        "pool": "demo",
        "port": 0,
        "nats_port": 0,
        "grace": 1.0,
        "log_level": "warning",
        "token": SecretStr(secrets.token_urlsafe(24)),
    }
    return settings.model_copy(
        update=fresh | {name: getattr(settings, name) for name in kept} | ours
    )


async def _work(settings: Settings, console: Console) -> None:
    runs: list[Run] = []
    installation = Installation(settings, register=False)
    try:
        began = time.perf_counter()
        await installation.start()
        until = asyncio.Event()
        ready = asyncio.ensure_future(installation.answers("/readyz", settings.start_timeout))
        ready.add_done_callback(lambda _: until.set())
        await installation.until(until)
        await ready
        took = time.perf_counter() - began
        host, port = installation.address
        gateway = Gateway(host, port, settings.read_token() or "")
        try:
            cores = sum(agent["cores"] for agent in await in_thread(gateway.workers))
            console.print(f"NATS, a gateway and workers on {cores} cores: ready in {took:.1f} s\n")
            for work in (await in_thread(source_metrics), prime_search(cores)):
                run = await in_thread(partial(_map, gateway, work, console))
                console.print(*(f"  {note}\n" for note in run.notes), sep="")
                runs.append(run)
        finally:
            gateway.close()
    finally:
        await asyncio.shield(installation.stop(asyncio.Event()))
    said = "the same on one core, in a plain loop, with nothing of jetmap running …"
    with console.status(said) if console.is_terminal else nullcontext():
        if not console.is_terminal:
            console.print(said)
        compared = [(run, *(await _serial(run, cores))) for run in runs]
    _report(compared, cores, console)


def _map(gateway: Gateway, work: Work, console: Console) -> Run:
    """Runs one map; called in a thread, because http.client blocks."""
    values: list[Any] = [None] * len(work.items)
    failed, first = 0, 0.0
    console.print(f"[bold]{work.title}[/bold]: {work.what}")
    with Bar(f"POST /map/{work.function}", len(work.items), console) as bar:
        began, busy = time.perf_counter(), _busy_seconds()
        for part in gateway.map(work.function, work.items):
            first = first or time.perf_counter() - began
            values[part.start : part.start + len(part.values)] = part.values
            failed += len(part.errors)
            bar.done(len(part.values), len(work.items))
        seconds, busy = time.perf_counter() - began, _busy_seconds() - busy
    return Run(work, seconds, first, busy, work.summarize(values, failed))


def _busy_seconds() -> float:
    """Seconds of CPU that all programs of this machine have used, this one among them."""
    times: dict[str, float] = psutil.cpu_times()._asdict()
    # Time of guests is in that of the users already.
    return sum(times.values()) - sum(
        times.get(name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice")
    )


def _others(run: Run, serial: float) -> float:
    """Which share of the machine other programs used during the map."""
    return max(0.0, run.busy - serial) / (run.seconds * (psutil.cpu_count() or 1))


async def _serial(run: Run, cores: int) -> tuple[float, Sample]:
    """Seconds that the work takes on one core, and what was measured to know it."""
    chosen = sample(run.work, run.seconds, cores)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jetmap.demo.serial"),
        env=os.environ | {TETHER: str(os.getpid())},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        order = json.dumps({"function": run.work.function, "items": chosen.items})
        output, _ = await process.communicate(order.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DemoError(f"the serial run ended with exit code {process.returncode}")
    return float(json.loads(output)) * chosen.factor, chosen


def _report(compared: list[tuple[Run, float, Sample]], cores: int, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("", "one core", f"jetmap, {cores} cores", "times as fast", "of the ideal"):
        table.add_column(column, justify="left" if not column else "right")
    for run, serial, _ in compared:
        speedup = serial / run.seconds
        table.add_row(
            run.work.title,
            f"{serial:.2f} s",
            f"{run.seconds:.2f} s",
            f"{speedup:.2f}",
            f"{speedup / cores:.0%}",
        )
    console.print()
    console.print(table)
    console.print()
    for run, _, chosen in compared:
        console.print(f"one core, {run.work.title}: CPU time, {chosen}", style="dim")
    others = max(_others(run, serial) for run, serial, _ in compared)
    if others > NOTABLE:
        console.print(
            f"other programs used {others:.0%} of this machine meanwhile: without them, jetmap "
            "would have been faster",
            style="yellow",
        )
    firsts = ", ".join(f"{run.first * 1000:.0f} ms" for run, *_ in compared)
    console.print(f"first results over HTTP after {firsts}", style="dim")


async def in_thread(function: Callable[[], T]) -> T:
    """Runs a blocking function in a thread that nobody waits for at exit: when the gateway has
    stopped, its connection breaks and the thread ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function()
        except Exception as exc:
            error = exc
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop has ended: the command was interrupted

    threading.Thread(target=run, name="demo", daemon=True).start()
    return await future
