"""Many agents in one process: ``python -m bench.scale.agents URLS COUNT CORES SHARDS``.

Everything but the workers is real: connections, pulls, claims, reports, announcements. A worker is
a timer, so a pool of any size fits on one machine. An item is the number of microseconds that it
takes. Prints ``ready`` when all have joined, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from jetmap.agent.agent import Agent
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from jetmap.wire import frames
from jetmap.wire.messages import Chunk, Final, Report, encode
from simulated_pool import SimulatedWorker, Work

AT_ONCE = 20  # Agents that start at the same time.


class TimerWorker(SimulatedWorker):
    """A worker that waits once for all items of a chunk."""

    async def _compute(self, chunk: Chunk) -> bool:
        items = msgspec.msgpack.decode(chunk.items, type=list[int])
        seconds = sum(items) * 1e-6
        if seconds:
            await asyncio.sleep(seconds)
        head = (chunk.map, chunk.number, chunk.attempt, chunk.start, len(items))
        final = Final(chunk.start + len(items))
        self._say(frames.LAST, encode(Report(*head, encode(items), [], seconds, final)))
        return True


async def _start(url: str, number: int, cores: int, shards: int) -> tuple[Agent, Connection]:
    connection = await Connection.open(url.split(","), name=f"agent-{number}", timeout=60)
    settings = Settings(version="1", work_shards=shards)
    options = AgentOptions(
        settings, worker_setup(settings), (), "", cores=cores, host=f"host-{number}"
    )
    agent = Agent(connection, options, start=TimerWorker.starter(Work()))
    await agent.start()
    return agent, connection


async def run(url: str, count: int, cores: int, shards: int) -> None:
    agents: list[tuple[Agent, Connection]] = []
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        agents += await asyncio.gather(*[_start(url, number, cores, shards) for number in numbers])
    print("ready", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    await ended.wait()
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*[agent.stop() for agent, _ in agents[first : first + AT_ONCE]])
    for _, connection in agents:
        await connection.close()


def main() -> None:
    url, count, cores, shards = sys.argv[1], *map(int, sys.argv[2:5])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(url, count, cores, shards))


if __name__ == "__main__":
    main()
