"""``jetmap demo``: compare maps over HTTP with a plain loop on one core."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Self, TypeVar, cast

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jetmap.background import beside
from jetmap.demo.beside import work_beside
from jetmap.demo.http import DemoError, GatewayClient
from jetmap.demo.live import Reading, figures
from jetmap.demo.work import Sample, Work, choose_sample, prime_search, source_metrics
from jetmap.import_path import module
from jetmap.machine import tethered
from jetmap.settings import Secret, Settings

from .installation import FAREWELL, Installation
from .options import takes
from .progress import Bar
from .signals import LEAVE_SECONDS, Stop, StopRequested, run
from .store import hold_store

TASKS = "jetmap.demo.tasks"
LOOK_SECONDS = 0.5  # Seconds between two looks at the gateway, on a terminal.
READINGS = 6  # Looks whose first and last give the figures on a terminal.
LINE_SECONDS = 5.0  # Seconds between two lines in a pipe.
NOTABLE = 0.1  # Share of a core's time used by other programs that is worth a line.
NEXT = """
your own functions: write tasks.py

    from jetmap import task

    @task
    def double(n: int) -> int:
        return 2 * n

then run `jetmap up tasks.py`, and from another terminal `seq 9 | jetmap map double`"""
T = TypeVar("T")


@dataclass
class FinishedMap:
    """A finished map.

    Attributes:
        seconds: Time from the request to the last result.
        first: Seconds from the request to the first result.
    """

    work: Work
    seconds: float
    first: float
    notes: list[str]


@dataclass
class Serial:
    """The same work on one core: wall-clock and CPU seconds, and the sample they come from."""

    seconds: float
    cpu: float
    sample: Sample

    @property
    def held_up(self) -> float:
        """Share of the time in which other programs used the core, 0 to 1."""
        return max(0.0, 1 - self.cpu / self.seconds) if self.seconds else 0.0


@takes("cores")
def demo(
    settings: Settings,
    stay: Annotated[
        bool,
        typer.Option(
            "--stay", help="Keep the cluster and its work until Ctrl-C, for looking round."
        ),
    ] = False,
) -> None:
    """Run real maps over HTTP on this machine, with live progress.

    Starts a NATS server, a worker per core and a gateway on free ports, and prints the address of
    its dashboard. Measures the Python files of this installation and searches for primes, showing
    results as they arrive; then does the same on one core to compare. Takes about a minute and
    leaves nothing behind; with --stay, its work goes on until Ctrl-C.
    """
    run(_demonstrate(settings, stay), patience=2 * FAREWELL + LEAVE_SECONDS)


async def _demonstrate(settings: Settings, stay: bool) -> None:
    stop = Stop()
    console = Console(soft_wrap=True, highlight=False)
    reported = asyncio.Event()
    try:
        # When it is cancelled, it stops what it has started before it ends.
        if not stay:
            await stop.cancel_on_request(_work(own(settings), console))
            return
        # Jobs need a store, and nothing is left behind.
        with TemporaryDirectory(prefix="jetmap-demo-", ignore_cleanup_errors=True) as store:
            chosen = own(settings).replace(store=store)
            await stop.cancel_on_request(_work(chosen, console, reported))
    except StopRequested:
        if not (stay and reported.is_set()):
            raise KeyboardInterrupt from None


def own(settings: Settings) -> Settings:
    """Return the settings of a private installation, whatever else is configured."""
    return Settings.of(
        {
            "cores": settings.workers.cores,
            "start_timeout": settings.workers.start_timeout,
            "tasks": [TASKS],
            "pool": "demo",
            "port": 0,
            "nats_port": 0,
            "grace": 1.0,
            "log_level": "warning",
            "token": Secret(secrets.token_urlsafe(24)),
        }
    )


async def _work(
    settings: Settings, console: Console, reported: asyncio.Event | None = None
) -> None:
    """Show everything. reported: set after the report, and the work goes on; None: it ends."""
    compared: list[tuple[FinishedMap, Serial]] = []
    store = hold_store(settings) if settings.server.store is not None else None
    installation = Installation(settings, register=False, store=store)
    try:
        began = time.perf_counter()
        await installation.start()
        until = asyncio.Event()
        answers = installation.answers("/readyz", settings.workers.start_timeout)
        async with beside(answers) as [ready]:
            ready.add_done_callback(lambda _: until.set())
            await installation.until(until)
            await ready
        took = time.perf_counter() - began
        host, port = installation.address
        gateway = GatewayClient(host, port, settings.gateway.read_token() or "")
        try:
            cores = sum(agent["cores"] for agent in await in_thread(gateway.workers))
            console.print(f"NATS, a gateway and workers on {cores} cores: ready in {took:.1f} s")
            token = settings.gateway.read_token()
            console.print(f"dashboard: {installation.url}/ui\ntoken:     {token}\n")
            console.print("looking for the Python files of this installation …", style="dim")
            for work in (await in_thread(source_metrics), prime_search(cores)):
                run = await in_thread(partial(_map, gateway, work, console))
                console.print(*(f"  {note}\n" for note in run.notes), sep="")
                # Right after the map, as other load on this machine changes with time.
                compared.append((run, await _serial(run, cores, console)))
            if reported is not None:
                _report(compared, cores, console)
                reported.set()
                await _go_on(gateway, [run.work for run, _ in compared], console)
        finally:
            gateway.close()
    finally:
        await asyncio.shield(installation.stop(asyncio.Event()))
    _report(compared, cores, console)


async def _go_on(gateway: GatewayClient, works: list[Work], console: Console) -> None:
    """Repeat the work, for as long as somebody looks round."""
    console.print("\nthe cluster stays and its work goes on, until Ctrl-C", style="bold")
    with work_beside(gateway, works[0].items):
        for work in itertools.cycle(works):
            try:
                await in_thread(partial(_repeat, gateway, work, console))
            except DemoError as error:  # Cancelled on the dashboard, or refused.
                console.print(f"  {error}", style="dim", markup=False)
                await asyncio.sleep(1)


def _repeat(gateway: GatewayClient, work: Work, console: Console) -> None:
    """Run one map and drop its results. Blocks, so it is called in a thread."""
    with LiveView(f"POST /map/{work.function}", len(work.items), gateway, console) as view:
        for part in gateway.map(work.function, work.items):
            view.done(len(part.values))


class LiveView:
    """The progress of a map, and what the cores do: redrawn on a terminal, else lines."""

    def __init__(self, name: str, total: int, gateway: GatewayClient, console: Console) -> None:
        from jetmap.client.progress import rich_progress

        self._console = console
        self._gateway = gateway.another()
        self._progress = rich_progress(console)
        self._task = self._progress.add_task(name, total=total)
        self._figures = Text("")
        self._live = Live(console=console, get_renderable=self._draw, transient=False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="demo-view", daemon=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        self._live.stop()

    def done(self, count: int) -> None:
        """Add ``count`` items that are done."""
        self._progress.update(self._task, advance=count)

    def _draw(self) -> Group:
        return Group(self._progress, self._figures)

    def _watch(self) -> None:
        """Read the gateway until the map is over, in a thread: the map's own thread is blocked."""
        is_terminal = self._console.is_terminal
        readings: deque[Reading] = deque(maxlen=READINGS)
        try:
            readings.append(self._gateway.reading())
            while not self._over.wait(LOOK_SECONDS if is_terminal else LINE_SECONDS):
                readings.append(self._gateway.reading())
                # The last seconds on a terminal, the whole time since the last line elsewhere.
                text = figures(readings[0 if is_terminal else -2], readings[-1])
                if is_terminal:
                    self._figures = Text(f"  {text}", style="cyan")
                else:
                    self._console.print(f"  {text}", style="dim")
        except (OSError, http.client.HTTPException, ValueError):
            pass  # The gateway stops; the map says so.
        finally:
            self._gateway.close()


def _map(gateway: GatewayClient, work: Work, console: Console) -> FinishedMap:
    """Run one map. Blocks, so it is called in a thread."""
    values: list[Any] = [None] * len(work.items)
    failed, first = 0, 0.0
    console.print(f"[bold]{work.title}[/bold]: {work.what}")
    with LiveView(f"POST /map/{work.function}", len(work.items), gateway, console) as view:
        began = time.perf_counter()
        for part in gateway.map(work.function, work.items):
            first = first or time.perf_counter() - began
            values[part.start : part.start + len(part.values)] = part.values
            failed += len(part.errors)
            view.done(len(part.values))
        seconds = time.perf_counter() - began
    return FinishedMap(work, seconds, first, work.summarize(values, failed))


async def _serial(run: FinishedMap, cores: int, console: Console) -> Serial:
    """Measure the same work on one core, on the same clock as the map."""
    chosen = choose_sample(run.work, run.seconds, cores)
    process = await asyncio.create_subprocess_exec(
        *tethered(*module("jetmap.demo.serial")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    last, done = b"", 0
    if not console.is_terminal:
        console.print("  the same on one core, in a plain loop …", style="dim")
    try:
        order = json.dumps({"function": run.work.function, "items": chosen.items})
        process.stdin.write(order.encode())
        process.stdin.close()
        with Bar("the same on one core, in a plain loop", len(chosen.items), console) as bar:
            async for line in process.stdout:
                last = line
                if line[:1] != b"{":
                    bar.done(int(line) - done, len(chosen.items))
                    done = int(line)
            bar.done(len(chosen.items) - done, len(chosen.items))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DemoError(f"the serial run ended with exit code {process.returncode}")
    found = json.loads(last)
    return Serial(found["seconds"] * chosen.factor, found["cpu"] * chosen.factor, chosen)


def _report(compared: list[tuple[FinishedMap, Serial]], cores: int, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("", "one core", f"jetmap, {cores} cores", "times as fast", "of the ideal"):
        table.add_column(column, justify="left" if not column else "right")
    for parallel, serial in compared:
        speedup = serial.seconds / parallel.seconds
        table.add_row(
            parallel.work.title,
            f"{serial.seconds:.2f} s",
            f"{parallel.seconds:.2f} s",
            f"{speedup:.2f}",
            f"{speedup / cores:.0%}",
        )
    console.print()
    console.print(table)
    console.print()
    for parallel, serial in compared:
        console.print(f"one core, {parallel.work.title}: {serial.sample}", style="dim")
    if (held_up := max(serial.held_up for _, serial in compared)) > NOTABLE:
        console.print(
            f"other programs had the core for up to {held_up:.0%} of the time: they make both "
            "columns larger, and their ratio less exact",
            style="yellow",
        )
    firsts = ", ".join(f"{parallel.first * 1000:.0f} ms" for parallel, _ in compared)
    console.print(f"first results over HTTP after {firsts}", style="dim")
    console.print(NEXT)


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread that does not hold up the exit.

    When the gateway has stopped, the thread's connection breaks, and it ends.
    """
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
            pass  # The loop has ended: the command was interrupted.

    threading.Thread(target=run, name="demo", daemon=True).start()
    return await future
