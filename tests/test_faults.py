"""Nothing is lost: processes really killed, frozen and restarted, in the middle of maps.

Each test compares every item's outcome with what went in, and fails if a process is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster, ItemRaised, ItemTimeout, MapTimeout, WorkerLost
from jetmap.broker.server import NatsServer
from jetmap.settings import Settings
from support import (
    FUNCTIONS,
    HERE,
    AgentProcess,
    Site,
    alive,
    check,
    marked,
    outcomes,
    presence,
    site,
    starts,
    wait_until,
)

pytestmark = pytest.mark.anyio

CORES = 2


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    """A site of the test's own."""
    async with site(tmp_path) as there:
        yield there


@pytest.fixture
async def own(place: Site) -> Cluster:
    return await place.cluster()


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One for tests that hurt no more than workers."""
    async with site(tmp_path_factory.mktemp("home")) as there:
        yield there


@pytest.fixture(scope="module")
async def cluster(home: Site) -> Cluster:
    return await home.cluster()


@pytest.fixture(scope="module")
async def home_agent(home: Site, cluster: Cluster) -> AgentProcess:
    return await home.agent(cluster)


@pytest.fixture
async def agent(
    home: Site, cluster: Cluster, home_agent: AgentProcess
) -> AsyncIterator[AgentProcess]:
    """The agent at home; afterwards there must be it and its workers, and nothing else."""
    await home.until_ready(cluster, home_agent)
    yield home_agent
    await home.until_ready(cluster, home_agent)
    await home.until_busy(cluster, 0)
    its_own = {home.server.pid, home_agent.pid}

    def nothing_else() -> bool:
        return {p.pid for p in marked(home.mark)} == its_own | {w.pid for w in home_agent.workers}

    await wait_until(nothing_else, "nothing else is left")
    assert len(home_agent.workers) == CORES and cluster.stats.maps_open == 0


def orders(count: int, bad: dict[int, str]) -> list[tuple[int, str]]:
    return [(n, bad.get(n, "")) for n in range(count)]


class Load:
    """A map that goes on until it is left; then each of its items must have its value."""

    def __init__(self, cluster: Cluster, how: str = "sleep:0.003") -> None:
        self._cluster = cluster
        self._how = how
        self._ended = False
        self._done = 0
        self._task: asyncio.Task[list[Any]] | None = None

    async def goes_on(self, timeout: float = 25) -> None:
        """Until a hundred more items are done."""
        goal = self._done + 100
        await wait_until(lambda: self._done >= goal, "the map goes on", timeout)

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        await self.goes_on()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        assert self._task is not None
        self._ended = True
        if error is not None:
            self._task.cancel()
            return
        check(await self._task, range(self._done))

    async def _run(self) -> list[Any]:
        found = await outcomes(self._cluster.stream(functions.hurt, self._items()), self._count)
        return [outcome.error or outcome.value for outcome in found]

    def _items(self) -> Iterator[tuple[int, str]]:
        number = 0
        while not self._ended:
            yield number, self._how
            number += 1

    def _count(self) -> None:
        self._done += 1


def executions(log: Path) -> Counter[int]:
    return Counter(start.index for start in starts(log))


# A crash costs one item


@pytest.mark.parametrize(
    ("how", "signal_number", "exit_code"),
    [("exit:7", None, 7), ("segfault", signal.SIGSEGV, None), ("kill", signal.SIGKILL, None)],
    ids=["exit", "segfault", "kill"],
)
async def test_a_crash_costs_one_item(
    cluster: Cluster,
    agent: AgentProcess,
    how: str,
    signal_number: int | None,
    exit_code: int,
) -> None:
    bad = {0: how, 4999: how, 5000: how, 9999: how}
    values = await cluster.map(functions.hurt, orders(10_000, bad), return_exceptions=True)
    check(values, range(10_000), dict.fromkeys(bad, WorkerLost))
    for index in bad:
        error = values[index]
        assert isinstance(error, WorkerLost)
        assert (error.signal, error.exit_code) == (signal_number, exit_code)
        assert error.attempts == 2 and error.host and (error.peak_memory or 0) > 1 << 20
    assert await cluster.map(functions.is_prime, [7]) == [True]


async def test_what_crashed_once_and_then_succeeds_is_a_success(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    bad = {3: "exit", 700: "segfault", 1999: "kill"}
    values = await cluster.map(functions.hurt_once, orders(2000, bad), kwargs={"marks": str(marks)})
    assert values == list(range(2000))


async def test_a_crash_runs_at_most_its_chunk_again(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    items = [functions.Order(n, 0.001, "exit" if n in (500, 1500) else "") for n in range(2000)]
    values = await cluster.map(
        functions.obey, items, kwargs={"log": str(log)}, return_exceptions=True
    )
    check(values, range(2000), {500: WorkerLost, 1500: WorkerLost})
    counts = executions(log)
    assert counts[500] == counts[1500] == 2
    # A chunk aims at 50 ms and ends after 100 ms; twice in each of two items is four crashes.
    again = sum(counts.values()) - 2000
    assert set(counts) == set(range(2000)) and again <= 4 * 100


async def test_one_raises_and_three_kill(cluster: Cluster, agent: AgentProcess) -> None:
    bad = {100: "raise", 400: "exit", 900: "segfault", 1600: "kill"}
    began = time.monotonic()
    values = await cluster.map(functions.hurt, orders(2000, bad), return_exceptions=True)
    took = time.monotonic() - began
    check(values, range(2000), {n: ItemRaised if n == 100 else WorkerLost for n in bad})
    assert took < 5, f"it took {took:.2f} s"


async def test_a_crash_is_no_business_of_other_maps(cluster: Cluster, agent: AgentProcess) -> None:
    good = [asyncio.ensure_future(cluster.map(functions.spin, [0.002] * 300)) for _ in range(3)]
    bad = dict.fromkeys(range(0, 100, 20), "exit")
    values = await cluster.map(functions.hurt, orders(100, bad), return_exceptions=True)
    check(values, range(100), dict.fromkeys(bad, WorkerLost))
    assert await asyncio.gather(*good) == [[0.002] * 300] * 3


@pytest.mark.parametrize("how", ["exit", "raise"])
async def test_small_maps_at_once_of_which_some_go_wrong(
    cluster: Cluster, agent: AgentProcess, how: str
) -> None:
    # They share messages; what goes wrong in one must not touch the others.
    def small(n: int) -> Awaitable[list[Any]]:
        items = [(n, how if n % 20 == 7 else ""), (n + 1000, "")]
        return cluster.map(functions.hurt, items, return_exceptions=True)

    kind = WorkerLost if how == "exit" else ItemRaised
    for n, values in enumerate(await asyncio.gather(*[small(n) for n in range(200)])):
        check(values, [n, n + 1000], {0: kind} if n % 20 == 7 else {})


async def test_small_maps_at_once_of_which_some_are_stuck(
    cluster: Cluster, agent: AgentProcess
) -> None:
    def small(n: int) -> Awaitable[list[Any]]:
        items = [(n, "loop" if n % 50 == 7 else "")]
        return cluster.map(functions.limited, items, return_exceptions=True)

    for n, values in enumerate(await asyncio.gather(*[small(n) for n in range(200)])):
        check(values, [n], {0: ItemTimeout} if n % 50 == 7 else {})


async def test_an_idle_worker_that_dies_is_replaced(cluster: Cluster, agent: AgentProcess) -> None:
    before = {worker.pid for worker in agent.workers}
    for worker in agent.workers:
        worker.kill()

    def replaced() -> bool:
        now = {worker.pid for worker in agent.workers}
        found = presence(cluster, agent)
        if found is None or found.ready < CORES:
            return False
        return len(now) == CORES and now.isdisjoint(before)

    await wait_until(replaced, "new workers are ready")
    numbers = range(1000)
    assert await cluster.map(functions.empty, numbers) == list(numbers)


async def test_memory_beyond_the_limit_is_an_error_of_the_item(place: Site, own: Cluster) -> None:
    await place.agent(own, FUNCTIONS, "--worker-memory", "400MB")
    bad = {50: "memory:2000000000"}
    values = await own.map(functions.hurt, orders(100, bad), return_exceptions=True)
    check(values, range(100), {50: ItemRaised})
    assert values[50].type == "MemoryError"


async def test_recycled_workers_lose_nothing(place: Site, own: Cluster) -> None:
    agent = await place.agent(own, FUNCTIONS, "--recycle-chunks", "3")
    before = {worker.pid for worker in agent.workers}
    async with Load(own):
        await wait_until(
            lambda: before.isdisjoint(worker.pid for worker in agent.workers),
            "both workers are replaced",
        )


# Time limits are real


@pytest.mark.parametrize("how", ["loop", "sleep:60", "hold:60"])
async def test_an_items_timeout(cluster: Cluster, agent: AgentProcess, how: str) -> None:
    bad = {0: how, 150: how, 299: how}
    began = time.monotonic()
    values = await cluster.map(functions.limited, orders(300, bad), return_exceptions=True)
    check(values, range(300), dict.fromkeys(bad, ItemTimeout))
    assert "timeout of 0.4 s" in values[0].message
    assert time.monotonic() - began < 15


async def test_a_timeout_ends_what_the_function_started(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    values = await cluster.map(
        functions.limited, orders(50, {25: f"child:{file}"}), return_exceptions=True
    )
    check(values, range(50), {25: ItemTimeout})
    await wait_until(lambda: not alive(int(file.read_text())), "the child is gone", 2)


async def test_a_maps_timeout_stops_what_holds_the_gil(
    home: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    with pytest.raises(MapTimeout):
        await cluster.map(functions.hurt, orders(10, {0: "hold:60", 1: "loop"}), timeout=0.5)
    await home.until_busy(cluster, 0, 1)
    assert await cluster.map(functions.empty, range(100)) == list(range(100))


@pytest.mark.slow
async def test_long_work_runs_once(cluster: Cluster, agent: AgentProcess, tmp_path: Path) -> None:
    # Longer than the broker's lease and than every patience there is.
    log = tmp_path / "log"
    items = [functions.Order(n, 0, how) for n, how in enumerate(["hold:16", "sleep:16", "", ""])]
    values = await cluster.map(functions.obey, items, kwargs={"log": str(log)})
    assert values == [0, 1, 2, 3]
    assert executions(log) == dict.fromkeys(range(4), 1)


# Leaving frees the cores


@pytest.mark.parametrize("way", ["cancelled map", "closed stream", "dropped stream"])
async def test_leaving_frees_the_cores(
    home: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path, way: str
) -> None:
    other = asyncio.ensure_future(cluster.map(functions.spin, [0.01] * 400))
    log = tmp_path / "log"
    items = [(n, 0.05) for n in range(2000)]
    kwargs = {"log": str(log)}
    if way == "cancelled map":
        running = asyncio.ensure_future(cluster.map(functions.logged, items, kwargs=kwargs))
        await wait_until(lambda: len(starts(log)) >= 10, "the map runs")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    else:
        stream = cluster.stream(functions.logged, items, kwargs=kwargs)
        assert (await anext(stream)).ok
        if way == "closed stream":
            await stream.aclose()
        del stream
    left = time.monotonic()
    assert await other == [0.01] * 400
    await until(left + 1.5)
    await home.until_busy(cluster, 0, 1)
    late = [start for start in starts(log) if start.at > left + 1]
    assert not late and len(starts(log)) < 2000
    assert cluster.stats.maps_open == 0


async def test_leaving_some_of_many_small_maps(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    # A cancel never hits another map's work, though they share messages and workers.
    log = tmp_path / "log"
    maps = [
        asyncio.ensure_future(cluster.map(functions.logged, [(n, 0.01)], kwargs={"log": str(log)}))
        for n in range(200)
    ]
    await wait_until(lambda: len(starts(log)) >= 10, "they run")
    for n in range(0, 200, 2):
        maps[n].cancel()
    kept = await asyncio.gather(*maps[1::2])
    assert kept == [[n] for n in range(1, 200, 2)]
    counts = executions(log)
    assert all(counts[n] >= 1 for n in range(1, 200, 2)) and sum(counts.values()) < 200


async def test_leaving_stops_what_does_not_end_by_itself(
    home: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    before = {worker.pid for worker in agent.workers}
    maps = [
        asyncio.ensure_future(cluster.map(functions.hurt, orders(10, {0: how})))
        for how in ("loop", "hold:60")
    ]
    await home.until_busy(cluster, CORES)
    for running in maps:
        running.cancel()

    def replaced() -> bool:
        return len(agent.workers) == CORES and before.isdisjoint(w.pid for w in agent.workers)

    await wait_until(replaced, "the workers are replaced", 3)
    assert await cluster.map(functions.empty, range(100)) == list(range(100))


@pytest.mark.slow
async def test_a_killed_caller(
    home: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    caller = await start_caller(home, log, count=100_000, seconds=0.02)
    await wait_until(lambda: len(starts(log)) > 20, "the map runs")
    other = asyncio.ensure_future(cluster.map(functions.empty, range(1000)))
    caller.kill()
    killed = time.monotonic()
    await caller.wait()
    await wait_until(
        lambda: time.monotonic() - starts(log)[-1].at > 2, "nothing of it runs any more", 14
    )
    assert starts(log)[-1].at < killed + 10
    assert await other == list(range(1000))
    await home.until_busy(cluster, 0, 1)


async def start_caller(
    place: Site, log: Path, *, count: int, seconds: float
) -> asyncio.subprocess.Process:
    """Another process that maps; it prints its values' sum at the end."""
    arguments = json.dumps([place.server.url, str(log), count, seconds])
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "caller.py"), arguments), stdout=subprocess.PIPE
    )


@pytest.mark.slow
async def test_a_frozen_caller_loses_nothing(
    home: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    caller = await start_caller(home, log, count=300, seconds=0.03)
    await wait_until(lambda: len(starts(log)) > 20, "the map runs")
    caller.send_signal(signal.SIGSTOP)
    try:
        await until(time.monotonic() + 14)
    finally:
        caller.send_signal(signal.SIGCONT)
    told, _ = await caller.communicate()
    assert json.loads(told) == sum(range(300))


async def until(at: float) -> None:
    """The fault itself lasts this long."""
    await wait_until(lambda: time.monotonic() >= at, "time passes", at - time.monotonic() + 1)


# Stop and replace


async def test_sigterm_drains(place: Site, own: Cluster, tmp_path: Path) -> None:
    first, _ = await two_agents(place, own)
    log = tmp_path / "log"
    running = asyncio.ensure_future(
        own.map(functions.logged, [(n, 0.02) for n in range(400)], kwargs={"log": str(log)})
    )
    await wait_until(lambda: own.stats.items_done > 40, "the map runs")
    first.signal(signal.SIGTERM)
    asked = time.monotonic()
    await wait_until(first.has_exited, "the agent exits", 12, lambda: first.said)
    assert first.process.returncode == 0, first.said
    assert time.monotonic() - asked < 3
    assert presence(own, first) is None
    assert await running == list(range(400))
    # What it had not begun was handed back, and nothing ran twice.
    assert executions(log) == dict.fromkeys(range(400), 1)


async def test_sigterm_in_a_long_item_hands_it_back(place: Site, own: Cluster) -> None:
    first, _ = await two_agents(place, own, "--grace", "1")
    running = asyncio.ensure_future(own.map(functions.nap, [3.0] * 4))
    await place.until_busy(own, 4)
    first.signal(signal.SIGTERM)
    await wait_until(first.has_exited, "the agent exits", 6, lambda: first.said)
    assert first.process.returncode == 0, first.said
    assert await running == [3.0] * 4


async def test_a_second_signal_means_now(place: Site, own: Cluster) -> None:
    first, _ = await two_agents(place, own, "--grace", "60")
    running = asyncio.ensure_future(
        own.map(functions.hurt, [(n, "sleep:8" if n < 4 else "") for n in range(50)])
    )
    await place.until_busy(own, 4)
    first.signal(signal.SIGTERM)
    await wait_until(lambda: "SIGTERM" in first.said, "it has heard the first")
    first.signal(signal.SIGINT)
    await wait_until(first.has_exited, "the agent exits", 3, lambda: first.said)
    second_signal = first.process.returncode
    assert second_signal == 0, first.said
    running.cancel()


async def test_sigterm_when_the_broker_went_first(place: Site, own: Cluster) -> None:
    agent = await place.agent(own)
    running = asyncio.ensure_future(own.map(functions.spin, [0.01] * 1000))
    await wait_until(lambda: own.stats.items_done > 10, "the map runs")
    await place.server.stop()
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent exits", 15, lambda: agent.said)
    assert agent.process.returncode == 0, agent.said
    running.cancel()


async def test_a_rolling_restart_under_load(place: Site, own: Cluster) -> None:
    agents = list(await two_agents(place, own))
    async with Load(own) as load:
        for old in agents:
            new = place.start_agent()
            await place.ready(own, new)
            old.signal(signal.SIGTERM)
            await wait_until(old.has_exited, "the old agent exits", 12, lambda old=old: old.said)
            assert old.process.returncode == 0, old.said
            await load.goes_on()


async def two_agents(
    place: Site, cluster: Cluster, *options: str
) -> tuple[AgentProcess, AgentProcess]:
    first = place.start_agent(FUNCTIONS, *options)
    second = place.start_agent(FUNCTIONS, *options)
    await place.ready(cluster, first, second)
    return first, second


# Host loss


@pytest.mark.slow
async def test_a_host_dies(place: Site, own: Cluster) -> None:
    first, _ = await two_agents(place, own)
    items = [functions.Work(n, 5000) for n in range(1500)]
    running = asyncio.ensure_future(own.map(functions.work, items))
    await wait_until(lambda: own.stats.items_done > 100, "the map runs")
    first.kill_host()
    killed = time.monotonic()
    assert await running == list(range(1500))
    assert time.monotonic() - killed < 20


@pytest.mark.slow
async def test_an_agent_is_frozen(place: Site, own: Cluster, tmp_path: Path) -> None:
    first, _ = await two_agents(place, own)
    log = tmp_path / "log"
    items = [functions.Order(n, 0.02, "") for n in range(1500)]
    running = asyncio.ensure_future(own.map(functions.obey, items, kwargs={"log": str(log)}))
    await wait_until(lambda: own.stats.items_done > 100, "the map runs")
    frozen = time.monotonic()
    first.signal(signal.SIGSTOP)
    await until(frozen + 13)
    first.signal(signal.SIGCONT)
    assert await running == list(range(1500))
    # Its late results change nothing; and it goes on.
    await wait_until(lambda: presence(own, first) is not None, "it is back")
    assert await own.map(functions.empty, range(500)) == list(range(500))
    await place.until_busy(own, 0, 2)


@pytest.mark.slow
async def test_an_agent_is_frozen_until_after_the_map(place: Site, own: Cluster) -> None:
    first, _ = await two_agents(place, own)
    running = asyncio.ensure_future(
        own.map(functions.work, [functions.Work(n, 10_000) for n in range(300)])
    )
    await wait_until(lambda: own.stats.items_done > 50, "the map runs")
    first.signal(signal.SIGSTOP)
    assert await running == list(range(300))
    first.signal(signal.SIGCONT)
    await wait_until(lambda: presence(own, first) is not None, "it is back", 15)
    assert await own.map(functions.empty, range(500)) == list(range(500))
    await place.until_busy(own, 0, 2)


async def test_an_agent_killed_alone_takes_its_workers_with_it(place: Site, own: Cluster) -> None:
    agent = await place.agent(own)
    workers = agent.workers
    assert len(workers) == CORES
    agent.signal(signal.SIGKILL)
    await wait_until(lambda: not any(alive(w.pid) for w in workers), "the workers end", 3)


# Broker loss


@pytest.mark.parametrize("kept", [True, False], ids=["store kept", "store lost"])
async def test_the_broker_restarts(tmp_path: Path, kept: bool) -> None:
    store = tmp_path / "store" if kept else None
    async with site(tmp_path, store=store) as place:
        cluster = await place.cluster()
        await place.agent(cluster)
        count = 1500
        running = asyncio.ensure_future(
            cluster.map(functions.work, [functions.Work(n, 3000) for n in range(count)])
        )
        await wait_until(lambda: cluster.stats.items_done > 100, "the map runs")
        await restart(place, store)
        assert await running == list(range(count))
        assert await cluster.map(functions.empty, range(100)) == list(range(100))


async def test_the_broker_is_killed_and_comes_back_late(place: Site, own: Cluster) -> None:
    await place.agent(own)
    running = asyncio.ensure_future(
        own.map(functions.work, [functions.Work(n, 3000) for n in range(1500)])
    )
    await wait_until(lambda: own.stats.items_done > 100, "the map runs")
    assert place.server.pid is not None
    os.kill(place.server.pid, signal.SIGKILL)
    await place.server.wait()
    # Both sides run dry meanwhile.
    await wait_until(lambda: not own.connected, "it is noticed")
    await until(time.monotonic() + 2)
    await restart(place, None)
    assert await running == list(range(1500))


async def restart(place: Site, store: Path | None) -> None:
    port = place.server.port
    await place.server.stop()
    place.server = NatsServer(port=port, store=store)
    await place.server.start()


async def test_several_maps_survive_a_restart(place: Site, own: Cluster) -> None:
    await place.agent(own)
    other = await place.cluster()
    maps: list[Any] = [
        asyncio.ensure_future(
            which.map(functions.work, [functions.Work(n, 2000) for n in range(300)])
        )
        for which in (own, other, own, other)
    ]
    await wait_until(lambda: own.stats.items_done > 50, "the maps run")
    await restart(place, None)
    assert await asyncio.gather(*maps) == [list(range(300))] * 4


async def test_a_work_stream_that_is_full(place: Site) -> None:
    settings = Settings.load(nats_url=place.server.url, work_max_messages=3)
    async with Cluster(settings=settings) as own:
        await place.agent(own)
        maps = [
            own.map(functions.work, [functions.Work(n, 1000) for n in range(100)]) for _ in range(3)
        ]
        assert await asyncio.gather(*maps) == [list(range(100))] * 3
