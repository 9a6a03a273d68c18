"""An item that kills its agents while their dispatcher is cut off: real ones, in virtual time."""

from __future__ import annotations

import asyncio

from jetmap.agent.agent import Agent
from jetmap.dispatch.blame import VANISHED_LIMIT
from jetmap.wire.timing import ACK_WAIT
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run
from waiting import wait_until

POISON = 99
TOUR = VANISHED_LIMIT + 1  # Twice in its chunk, then alone.
AGENTS = 6


class Poisoned(SimulatedPool):
    """A pool in which one item kills every agent that begins it."""

    def __init__(self) -> None:
        super().__init__(work=Work(seconds=self._seconds))
        self.begun: list[float] = []  # When the item was begun.
        self._killing: list[asyncio.Task[None]] = []

    def _seconds(self, item: int) -> float:
        if item != POISON:
            return 0.01
        loop = asyncio.get_running_loop()
        self.begun.append(loop.time())
        self._killing.append(loop.create_task(self._kill_holder()))
        return 3600.0

    async def _kill_holder(self) -> None:
        await self.kill(next(agent for agent in self._agents if self._holds(agent)))

    def _holds(self, agent: Agent) -> bool:
        return any(slot.held is not None for slot in agent._slots)


def tour(cut_after: float, seconds: float) -> int:
    """Return how many agents an item reaches whose caller is cut off.

    Args:
        cut_after: From the first begin of the item to the cut.
        seconds: Length of the cut.
    """

    async def scenario() -> int:
        async with Poisoned() as pool:
            for number in range(AGENTS):
                await pool.agent(1, host=f"host-{number}")
            dispatcher = await pool.dispatcher()
            assert await mapped(dispatcher, [1]) == [2]
            caller = pool._connections[-1]
            mapping = asyncio.ensure_future(mapped(dispatcher, [POISON]))
            await wait_until(lambda: pool.begun, "the item begins")
            await asyncio.sleep(cut_after)
            caller.lose()
            await asyncio.sleep(seconds)
            caller.restore()
            assert await mapping == [None]
            return len(pool.begun)

    return run(scenario())


def test_an_agent_that_is_missed_late_counts_although_it_claimed_nothing() -> None:
    """The cut makes the dispatcher miss it only after the next agent has claimed the chunk."""
    for seconds in (3.0, 5.0, ACK_WAIT - 2.5):
        assert tour(0.5, seconds) == TOUR, seconds


def test_a_chunk_that_its_agent_had_to_drop_was_delivered_before() -> None:
    """The next agent gets no answer, and lets the broker forget the chunk and its deliveries."""
    assert tour(8.0, 10.0) == TOUR


def test_a_cut_costs_at_most_one_agent_more() -> None:
    for after in (0.0, 4.0, ACK_WAIT + 1, ACK_WAIT + 7):
        assert tour(after, 5.0) <= TOUR + 1, after
