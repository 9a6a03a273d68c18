"""A whole pool in virtual time: real dispatchers and agents, workers that only wait.

The broker is the one in memory, and each item takes the seconds that the test says. What is left
out is what needs processes: pickling, pinning, pipes and real crashes.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from jetmap.agent.agent import Agent
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.worker_process import Death
from jetmap.dispatch.dispatcher import Dispatcher, DispatchOptions
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.sources import RawItems
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from jetmap.settings import Settings
from jetmap.wire import frames
from jetmap.wire.budget import Budget
from jetmap.wire.messages import Chunk, ErrorRecord, Final, Report, Together, encode
from jetmap.wire.presence import FunctionInfo
from jetmap.wire.worker_start import Ready, Setup, StartFailed
from jetmap.worker.progress import ProgressPages

FUNCTION = "double"
_chunk = msgspec.msgpack.Decoder(Chunk).decode


@dataclass
class Work:
    """The work of the pool's function: ``double``, at a cost.

    kills: items that kill workers. fails: items that raise, outside of batches. shortcut: takes
    each report past the agent, or returns False.
    """

    seconds: Callable[[int], float] = lambda item: 0.001
    kills: Callable[[int], bool] = lambda item: False
    fails: Callable[[int], bool] = lambda item: False
    runs: Counter[int] = field(default_factory=Counter)
    batch: int = 0  # Items of one call, if the function takes a list.
    calls: list[list[int]] = field(default_factory=list)  # Those of batches.
    shortcut: Callable[[Report], bool] | None = None


class SimulatedWorker:
    """A worker process as its slot sees it; computes by waiting."""

    start_seconds = 0.1
    has_failed = False
    is_warm = False

    def __init__(self, work: Work) -> None:
        self.pid = 1
        self.progress = ProgressPages.create()
        self._work = work
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._chunks: asyncio.Queue[Chunk | Together] = asyncio.Queue()
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._death: asyncio.Future[Death] = loop.create_future()
        self._task = loop.create_task(self._serve())

    @classmethod
    def starter(cls, work: Work) -> Callable[..., Any]:
        async def start(options: AgentOptions, cpu: int | None, setup: Setup) -> SimulatedWorker:
            return cls(work)

        return start

    @property
    def has_answered(self) -> bool:
        return bool(self._frames) or self._death.done()

    @property
    def is_dead(self) -> bool:
        return self._death.done()

    def send_chunk(self, data: bytes) -> None:
        self._chunks.put_nowait(_chunk(data))

    def send_batch(self, together: Together) -> None:
        self._chunks.put_nowait(together)

    async def receive(self) -> tuple[bytes, bytes] | None:
        while not self._frames:
            if self._death.done():
                return None
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft()

    async def death(self) -> Death:
        return await asyncio.shield(self._death)

    end_behind_pipe = death

    async def failure(self) -> StartFailed:
        raise AssertionError("it never fails to start")

    async def gone(self) -> None:
        await self.death()

    async def end(self) -> None:
        self.kill()
        self.close()

    def memory(self) -> int:
        return 0

    def mark_output(self, mark: Callable[[], str]) -> None: ...

    def describe(self) -> str:
        return "[worker]"

    def kill(self) -> None:
        self._die(Death(9, None, 0))

    dismiss = kill

    def close(self, mark: str = "") -> None:
        self.progress.close()

    def _die(self, death: Death) -> None:
        if not self._death.done():
            self._death.set_result(death)
            self._task.cancel()
            self._news.set()

    def _say(self, kind: bytes, payload: bytes) -> None:
        self._frames.append((kind, payload))
        self._news.set()

    async def _serve(self) -> None:
        await asyncio.sleep(self.start_seconds)
        info = FunctionInfo(FUNCTION, batch=self._work.batch, linger=0.05)
        ready = Ready([info], "source", [])
        self._say(frames.READY, encode(ready))
        number = 0
        while True:
            chunk = await self._chunks.get()
            number += 1
            if isinstance(chunk, Together):
                chunks: list[Any] = [await self._chunks.get() for _ in range(chunk.count)]
                if not await self._compute_batch(chunk, number, chunks):
                    return
                number += chunk.count - 1
            elif self._work.batch:
                if not await self._compute_batch(Together(1, 0, [chunk.count]), number, [chunk]):
                    return
            elif not self.progress.begin(number):
                self._say(frames.SKIPPED, b"")
            elif not await self._compute(chunk):
                return

    async def _compute(self, chunk: Chunk) -> bool:
        loop = asyncio.get_running_loop()
        began = loop.time()
        budget = Budget(chunk.budget, chunk.each)
        values: list[int | None] = []
        reported = 0
        self.progress.expect(began + budget.until(1), budget.each)
        for offset, item in enumerate(msgspec.msgpack.decode(chunk.items, type=list[int])):
            self.progress.enter(chunk.start + offset, int(loop.time() * 1e9))
            if self.progress.stopping or budget.is_spent(offset, loop.time() - began):
                break
            self._work.runs[item] += 1
            await asyncio.sleep(self._work.seconds(item))
            if self._work.kills(item):
                self._die(Death(11, None, 0))
                return False
            values.append(None if self._work.fails(item) else 2 * item)
            if self._work.shortcut is not None and len(values) < chunk.count:
                head = chunk.map, chunk.number, chunk.attempt, chunk.start + reported
                report = Report(*head, 1, encode(values[reported:]), [], 0.0)
                if not self._work.shortcut(report):
                    self._say(frames.PART, encode(report))
                reported += 1
        self.progress.leave()
        self._end(chunk, values[reported:], loop.time() - began, reported)
        return True

    async def _compute_batch(self, plan: Together, number: int, chunks: list[Chunk]) -> bool:
        """Compute chunks in the calls of a plan; a call takes as long as its dearest item."""
        self.progress.begin(number)
        elements = [
            (at, chunk.start + offset, item)
            for at, chunk in enumerate(chunks)
            for offset, item in enumerate(msgspec.msgpack.decode(chunk.items, type=list[int]))
        ][plan.skip :]
        values: list[list[int | None]] = [[] for _ in chunks]
        ended = 0
        for run in plan.runs:
            while run and not self.progress.stopping:
                call, elements = elements[: self._work.batch], elements[self._work.batch :]
                call, elements = call[:run], call[run:] + elements
                run -= len(call)
                begun, index, _ = call[0]
                self.progress.begin(number + begun)
                self.progress.enter_call(index, len(call))
                items = [item for _, _, item in call]
                self._work.calls.append(items)
                self._work.runs.update(items)
                await asyncio.sleep(max(map(self._work.seconds, items)))
                if any(map(self._work.kills, items)):
                    self._die(Death(11, None, 0))
                    return False
                self.progress.leave()
                for at, _, item in call:
                    values[at].append(2 * item)
                following = elements[0][0] if elements else len(chunks)
                for at in range(ended, following):
                    self._end(chunks[at], values[at], 0.001, plan.skip if at == 0 else 0)
                ended = following
        for at in range(ended, len(chunks)):
            self._end(chunks[at], values[at], 0.001, plan.skip if at == 0 else 0)
        self.progress.leave_batch()
        return True

    def _end(self, chunk: Chunk, values: list[int | None], seconds: float, skip: int = 0) -> None:
        start, done = chunk.start + skip, len(values)
        head = (chunk.map, chunk.number, chunk.attempt, start, done)
        failed = [index for index, value in enumerate(values, start) if value is None]
        errors = [ErrorRecord(index, "raised", "ValueError", f"no {index}") for index in failed]
        report = Report(*head, encode(values), errors, seconds, Final(start + done))
        if self._work.shortcut is not None and self._work.shortcut(report):
            self._say(frames.ENDED, b"")
        else:
            self._say(frames.LAST, encode(report))


class FarConnection(MemoryConnection):
    """A connection whose messages take their time, both ways, and keep their order."""

    def __init__(self, broker: MemoryBroker, name: str, seconds: float) -> None:
        super().__init__(broker, name, "_INBOX")
        self._seconds = seconds
        self._outward: deque[tuple[Any, ...]] = deque()
        self._inward: deque[tuple[Any, ...]] = deque()

    async def publish(self, *message: Any, **more: Any) -> None:
        self._outward.append((message, more))
        asyncio.get_running_loop().call_later(self._seconds / 2, self._leave)

    def _leave(self) -> None:
        message, more = self._outward.popleft()
        self._background.spawn(super().publish(*message, **more), "publish")

    def receive(self, *received: Any) -> None:
        self._inward.append(received)
        asyncio.get_running_loop().call_later(self._seconds / 2, self._arrive)

    def _arrive(self) -> None:
        super().receive(*self._inward.popleft())

    async def round_trip(self) -> float:
        return self._seconds


class SimulatedPool:
    """A broker, dispatchers and agents; ends with its ``async with``."""

    def __init__(self, broker: MemoryBroker | None = None, work: Work | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self.work = work or Work()
        self._agents: list[Agent] = []
        self._dispatchers: list[Dispatcher] = []
        self._connections: list[MemoryConnection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        for dispatcher in self._dispatchers:
            await dispatcher.close()
        for agent in self._agents:
            await agent.stop()
        for connection in self._connections:
            await connection.close()

    async def agent(
        self,
        cores: int = 1,
        host: str = "host",
        *,
        round_trip: float = 0.0,
        shards: int = 0,
        ahead: bool = False,
    ) -> Agent:
        """Start an agent whose workers are simulated.

        Args:
            round_trip: Seconds from it to the broker and back.
            shards: Shards that the pool is to have; 0: those that it has.
            ahead: Whether the next chunk of each core waits with it.
        """
        settings = Settings(version="1", work_shards=shards)
        options = AgentOptions(
            settings, worker_setup(settings), (), "", cores=cores, host=host, ahead=ahead
        )
        start = SimulatedWorker.starter(self.work)
        if round_trip:
            connection: MemoryConnection = FarConnection(self.broker, "agent", round_trip)
            self.broker.connect_as(connection)
            self._connections.append(connection)
        else:
            connection = self._connect("agent")
        agent = Agent(connection, options, start=start)
        self._agents.append(agent)
        await agent.start()
        return agent

    async def dispatcher(self, options: DispatchOptions | None = None) -> Dispatcher:
        """Start a dispatcher that waits patiently for a function to be announced."""
        options = options or DispatchOptions(Settings(), announce_seconds=30.0)
        dispatcher = Dispatcher(self._connect("caller"), options)
        self._dispatchers.append(dispatcher)
        await dispatcher.start()
        return dispatcher

    async def kill(self, agent: Agent) -> None:
        """End an agent as SIGKILL does: no goodbye, its connection lost, its workers gone."""
        self._agents.remove(agent)
        connection = agent._connection
        assert isinstance(connection, MemoryConnection)
        await connection.close()
        await agent.stop()

    def _connect(self, name: str) -> MemoryConnection:
        connection = self.broker.connect(name)
        self._connections.append(connection)
        return connection


async def mapped(
    dispatcher: Dispatcher, items: list[int], *, whole: bool = False
) -> list[int | None]:
    """Run a map; return each item's value, None where it failed. Every item has one outcome.

    whole: whether nobody reads before all outcomes are there.
    """
    elements = [encode(item) for item in items]
    spec = MapSpec(function=FUNCTION, format="msgpack", whole=whole)
    run = await dispatcher.open(spec, RawItems(elements, "msgpack"))
    outcomes: dict[int, int | None] = {}
    async with run:
        async for batch in run:
            values = msgspec.msgpack.decode(batch.values)
            failed = {error.index for error in batch.errors}
            for index, value in enumerate(values, batch.start):
                assert index not in outcomes, f"two outcomes for item {index}"
                outcomes[index] = None if index in failed else value
    assert sorted(outcomes) == list(range(len(items)))
    return [outcomes[index] for index in range(len(items))]
