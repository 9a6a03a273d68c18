"""An agent that stops, and is then forced to stop at once."""

from __future__ import annotations

import asyncio
import os
import sys

import psutil
import pytest

from jetmap.agent.agent import Agent
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.settings import Settings
from servers import FUNCTIONS, Site
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio


async def test_who_stops_waits_for_the_workers_though_the_drain_is_cut_short(place: Site) -> None:
    options = AgentOptions(
        Settings(), worker_setup(Settings(), tasks=[FUNCTIONS]), tuple(sys.path), str(place.place)
    )
    agent = Agent(await place.connection(), options)
    others = psutil.Process(os.getpid()).children()
    await agent.start()
    await wait_until(lambda: agent.was_ready, "a worker is ready")
    workers = set(psutil.Process(os.getpid()).children()) - set(others)
    assert workers
    draining = asyncio.ensure_future(agent.drain(5))
    await wait_until(lambda: agent._stopping is not None, "it has nothing to finish, and stops")
    draining.cancel()
    await turns(2)
    assert draining.cancelled()
    await agent.stop()
    assert not any(psutil.pid_exists(w.pid) for w in workers)
