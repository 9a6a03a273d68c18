"""A cluster in memory, with the interface that the gateway uses: no processes, no broker.

Functions are plain Python ones; an ``async def`` is awaited, so that a test can hold an item.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import typing
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, cast

import httpx
import msgspec

from fake_watch import FakeWatch
from jetmap.client.cluster import Cluster
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.roster import FunctionStatus
from jetmap.dispatch.sources import Source
from jetmap.dispatch.stats import Stats
from jetmap.errors import JobsUnavailable, MapTimeout, UnknownFunction
from jetmap.settings import Settings
from jetmap.wire import arrays, subjects
from jetmap.wire.controls import PoolControl
from jetmap.wire.counts import PoolCounts
from jetmap.wire.messages import ErrorRecord, Format
from jetmap.wire.presence import CoreStatus, FunctionInfo, Presence
from jetmap_api import create_app

DECODE: dict[Format, Callable[..., Any]] = {
    "json": msgspec.json.decode,
    "msgpack": msgspec.msgpack.decode,
}
ENCODE: dict[Format, Callable[[Any], bytes]] = {
    "json": msgspec.json.encode,
    "msgpack": msgspec.msgpack.encode,
}


class FakeCluster:
    """chunk: items of a batch. swap: whether batches come in another order than the input's.

    refuse: raised by ``open``. runs: every map that was opened. service: of jobs, if there is one.
    """

    max_item = 1_000_000

    def __init__(self, *functions: Callable[..., Any], chunk: int = 3, swap: bool = False) -> None:
        self.connected = True
        self.counts = PoolCounts()
        self.stats = Stats()
        self.memory = Memory(1 << 60)
        self.refuse: Exception | None = None
        self.runs: list[FakeRun] = []
        self.service: Any = None
        self.watch = FakeWatch()
        self.costs: dict[str, Any] = {}
        self.where = "nats://broker:4222"
        self.control = PoolControl()
        self.max_parallel: dict[str, int] = {}  # Limits in the functions' code.
        self.settings = Settings()
        self._functions = {function.__name__: function for function in functions}
        self._chunk = chunk
        self._swap = swap

    @property
    def jobs(self) -> Any:
        if self.service is None:
            raise JobsUnavailable("this cluster has no store that lasts")
        return self.service

    @property
    def open_maps(self) -> int:
        return self.stats.maps_open

    @property
    def named(self) -> dict[str, Callable[..., Any]]:
        return self._functions

    def add(self, function: Callable[..., Any]) -> None:
        self._functions[function.__name__] = function

    async def steer(self, function: str | None, **wishes: Any) -> PoolControl:
        if function is not None and function not in self._functions:
            raise UnknownFunction(f"no worker ever announced a function {function!r}")
        self.control = self.control.steered(function, **wishes)
        return self.control

    async def open(
        self,
        name: str,
        source: Source,
        *,
        format: Format,
        kwargs: bytes = b"",
        timeout: float | None = None,
        ordered: bool = False,
        early: bool = False,
        whole: bool = False,
        values: bool = True,
        labels: dict[str, str] | None = None,
        max_parallel: int | None = None,
    ) -> FakeRun:
        if self.refuse is not None:
            raise self.refuse
        if name not in self._functions:
            raise UnknownFunction(f"no worker ever announced a function {name!r}")
        keywords = DECODE[format](kwargs) if kwargs else {}
        run = FakeRun(
            self._functions[name],
            source,
            format,
            keywords,
            timeout,
            self._chunk,
            self._swap and not ordered,
            self.stats,
        )
        run.early = early
        self.runs.append(run)
        self.stats.maps_started += 1
        self.stats.maps_open += 1
        return run

    @property
    def functions(self) -> list[FunctionStatus]:
        return [FunctionStatus(self._info(name), ["here"], 2, True) for name in self._functions]

    def info(self, name: str) -> FunctionInfo | None:
        return self._info(name) if name in self._functions else None

    def _info(self, name: str) -> FunctionInfo:
        info = _info(self._functions[name])
        return msgspec.structs.replace(info, max_parallel=self.max_parallel.get(name))

    @property
    def pool_counts(self) -> PoolCounts:
        return self.counts

    @property
    def workers(self) -> list[Presence]:
        infos = [status.info for status in self.functions]
        cores = [CoreStatus(100 + cpu, cpu, "idle") for cpu in range(2)]
        return [
            Presence("a1", "here", 99, "default", "o1", "", 1, 2, 2, 1, False, False, infos, cores)
        ]


class FakeRun:
    """withdrawn: whether it was left before its end. taken: how many items were begun.
    stopped: whether no more are taken."""

    early = False

    def __init__(
        self,
        function: Callable[..., Any],
        source: Source,
        format: Format,
        kwargs: dict[str, Any],
        timeout: float | None,
        chunk: int,
        swap: bool,
        stats: Stats,
    ) -> None:
        self.id = subjects.new_id()
        self.withdrawn = asyncio.Event()
        self.ended = False
        self.stopped = False
        self._closed = False
        self.taken = 0
        self._function = function
        self._source = source
        self._format = format
        self._kwargs = kwargs
        self._chunk = chunk
        self._stats = stats
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._woken = asyncio.Event()
        source.wake = self._woken.set
        hints = typing.get_type_hints(function)
        self._type = hints.get(next(iter(inspect.signature(function).parameters)), Any)
        self._batches = self._swapped() if swap else self._all()

    @property
    def total(self) -> int | None:
        return self._source.total

    @property
    def done(self) -> int:
        return self.taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            async with asyncio.timeout(left):
                return await anext(self._batches)
        except TimeoutError as exc:
            raise MapTimeout(f"the map took longer than {self._timeout} s") from exc

    def stop(self, before: int = 0) -> None:
        """Take no more items; the iteration ends after those that were taken."""
        self.stopped = True
        self._woken.set()

    async def aclose(self) -> None:
        """Withdraws what is not done yet. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._source.wake = None
        self._stats.maps_open -= 1
        self._stats.maps_ended["ok" if self.ended else "withdrawn"] += 1
        if not self.ended:
            self.withdrawn.set()

    async def _all(self) -> AsyncIterator[Batch]:
        while not self.stopped:
            self._woken.clear()
            if self._source.error is not None:
                raise self._source.error
            taken = self._source.take(self._chunk, 1 << 18)
            if taken is not None:
                yield await self._compute(taken.items, taken.count)
            elif self._source.total is not None:
                self.ended = True
                return
            else:
                await self._woken.wait()

    async def _swapped(self) -> AsyncIterator[Batch]:
        held: Batch | None = None
        async for batch in self._all():
            if held is None:
                held = batch
            else:
                yield batch
                yield held
                held = None
        if held is not None:
            yield held

    async def _compute(self, items: bytes, count: int) -> Batch:
        start = self.taken
        self.taken += count
        errors: list[ErrorRecord] = []
        values = [
            await self._one(index, bytes(raw), errors)
            for index, raw in enumerate(arrays.split(items, self._format), start)
        ]
        self._stats.items_done += count
        self._stats.chunks += 1
        return Batch(start, count, arrays.join(values, self._format), errors)

    async def _one(self, index: int, raw: bytes, errors: list[ErrorRecord]) -> bytes:
        kind = "invalid"
        try:
            item = DECODE[self._format](raw, type=self._type)
            kind = "raised"
            value = self._function(item, **self._kwargs)
            if inspect.isawaitable(value):
                value = await value
            kind = "unencodable"
            return ENCODE[self._format](value)
        except Exception as exc:
            self._stats.errors[kind] += 1
            trace = f"Traceback (most recent call last):\n  {exc!r}"
            errors.append(ErrorRecord(index, kind, type(exc).__name__, str(exc), trace))
            return arrays.NULL[self._format]


def _info(function: Callable[..., Any]) -> FunctionInfo:
    hints = typing.get_type_hints(function)
    first, *others = inspect.signature(function).parameters.values()
    properties = {p.name: msgspec.json.schema(hints.get(p.name, Any)) for p in others}
    required = [p.name for p in others if p.default is p.empty]
    return FunctionInfo(
        name=function.__name__,
        doc=inspect.getdoc(function) or "",
        item=msgspec.json.schema(hints.get(first.name, Any)),
        value=msgspec.json.schema(hints.get("return", Any)),
        kwargs={"type": "object", "properties": properties, "required": required},
        module=function.__module__,
    )


def gateway(cluster: FakeCluster, **options: Any) -> httpx.AsyncClient:
    """A client of a gateway over this cluster. options: settings."""
    app = create_app(cast(Cluster, cluster), Settings(**options))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://localhost"
    )
