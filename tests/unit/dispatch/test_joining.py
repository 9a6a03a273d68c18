"""Cores that come free for a map of long items: real dispatchers and agents, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jetmap.agent.agent import Agent
from simulated_pool import SimulatedPool, SimulatedWorker, Work, mapped
from virtual_time import run
from waiting import wait_until

LONG = 60.0
SOON = 1.0 + SimulatedWorker.start_seconds


class Watched(Work):
    """Work that notes when each item was begun."""

    def __init__(self, seconds: Callable[[int], float] = lambda item: LONG) -> None:
        super().__init__()
        self.begun: dict[int, float] = {}

        def cost(item: int) -> float:
            self.begun[item] = asyncio.get_running_loop().time()
            return seconds(item)

        self.seconds = cost


async def busy(agent: Agent, cores: int, within: float) -> None:
    """Wait until this number of cores of an agent compute."""
    await wait_until(
        lambda: sum(slot.held is not None for slot in agent._slots) >= cores, "they work", within
    )


def test_an_agent_that_joins_has_work_on_all_its_cores_within_a_second() -> None:
    async def scenario(is_known: bool) -> None:
        work = Watched()
        async with SimulatedPool(work=work) as pool:
            first = await pool.agent(2, host="first")
            dispatcher = await pool.dispatcher()
            if is_known:
                await mapped(dispatcher, list(range(4)))
            running = asyncio.ensure_future(mapped(dispatcher, list(range(100))))
            await busy(first, 2, SOON)
            for host in ("second", "third"):
                await asyncio.sleep(LONG / 5)
                await busy(await pool.agent(8, host=host), 8, SOON)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    for is_known in (False, True):
        run(scenario(is_known))


def test_a_worker_that_is_replaced_has_work_within_a_second() -> None:
    killed: list[int] = []

    def kills(item: int) -> bool:
        if item != 3 or killed:
            return False
        killed.append(item)
        return True

    async def scenario() -> None:
        work = Watched(lambda item: 1.0 if item == 3 else LONG)
        work.kills = kills
        async with SimulatedPool(work=work) as pool:
            agent = await pool.agent(4)
            dispatcher = await pool.dispatcher()
            running = asyncio.ensure_future(mapped(dispatcher, list(range(40))))
            await wait_until(lambda: bool(killed), "the worker is dead")
            await busy(agent, 4, SOON)
            assert len(work.begun) >= 4
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(scenario())


def test_cores_that_another_dispatcher_leaves_have_work_at_the_next_announcement() -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=Watched(lambda item: LONG if item < 1000 else 0.05)) as pool:
            agent = await pool.agent(8)
            one, other = await pool.dispatcher(), await pool.dispatcher()
            crowd = asyncio.ensure_future(mapped(other, list(range(1000, 20_000))))
            await busy(agent, 8, SOON)
            long = asyncio.ensure_future(mapped(one, list(range(100))))
            await asyncio.sleep(5)
            one._scheduler.window.size = 1.0  # As small as a crowd can make it.
            crowd.cancel()
            await asyncio.gather(crowd, return_exceptions=True)
            await busy(agent, 8, 3.0)
            long.cancel()
            await asyncio.gather(long, return_exceptions=True)

    run(scenario())
