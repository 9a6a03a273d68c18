"""Made-up announcements: ``python -m bench.scale.announcing URL AGENTS CORES FUNCTIONS STATE``.

Nothing computes here, so that a pool of any size fits on one machine: one process says every two
seconds what as many agents would say. In the state ``idle`` an announcement differs from the last
one in its time only; in the state ``busy`` every core has something else to do. Prints ``ready``
once it has begun, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time

import msgspec
import uvloop

from jetmap.nats.broker import Message
from jetmap.nats.connection import Connection
from jetmap.wire import subjects
from jetmap.wire.messages import Ping, encode
from jetmap.wire.presence import (
    FIRST_RUNNING,
    CoreDetail,
    FunctionInfo,
    Presence,
    at_time,
    offer_digest,
)
from jetmap.wire.protocol import OLDEST_PROTOCOL, PROTOCOL
from jetmap.wire.timing import BEAT
from jetmap.wire.versions import package_versions, python_version

POOL = "default"
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "number", "description": "A number."} for name in "abcdef"},
}


class Pool:
    """Agents that are made up."""

    def __init__(self, agents: int, cores: int, functions: int, *, busy: bool) -> None:
        self._cores = cores
        self._busy = busy
        infos = [
            FunctionInfo(f"function_{n}", "What it does.", SCHEMA, SCHEMA, module="shop.tasks")
            for n in range(functions)
        ]
        self._functions = infos
        self._digest = offer_digest({info.name: info for info in infos})
        self._draw = random.Random(1)
        self.names = [f"agent{n:05}" for n in range(agents)]
        self._last: dict[str, bytes] = {}

    def message(self, agent: str, *, whole: bool = False) -> bytes:
        """Return an agent's next announcement. whole: with its functions."""
        if not self._busy and not whole and agent in self._last:
            return at_time(self._last[agent], time.monotonic())
        draw, cores, functions = self._draw, self._cores, self._functions
        names = [info.name for info in functions]
        kinds = draw.choices(range(len(functions)), k=cores) if self._busy else []
        running = sorted(set(kinds))
        numbers = {kind: FIRST_RUNNING + n for n, kind in enumerate(running)}
        now = time.monotonic()
        details = [
            CoreDetail(4_000 + n, n, f"0QK3ZM2T8V{draw.randrange(9_999):04}", now, 7_000 + n)
            if self._busy
            else CoreDetail(4_000 + n, n, None, 1.0, 7_000 + n)
            for n in range(cores)
        ]
        count = draw.randrange(1 << 20) if self._busy else 7
        message = encode(
            Presence(
                *(agent, f"host-{agent}", 4_000, POOL, "bench", "71d0a4b9", 1, cores, cores),
                *(len(kinds), False, False),
                functions=functions if whole else [],
                listed=[],
                counted=msgspec.Raw(encode([[name, "ok", count] for name in names])),
                machine="2f1c1c53-5c63-4e0c-9bcb-3a1d6fd1b2f0",
                python=python_version(),
                packages=package_versions(),
                protocol=PROTOCOL,
                oldest_protocol=OLDEST_PROTOCOL,
                memory=1 << 34,
                memory_limit=1 << 38,
                digest=self._digest,
                running=[names[kind] for kind in running],
                cells=bytes(numbers[kind] for kind in kinds) or b"\1" * cores,
                details=msgspec.Raw(encode(details)),
                now=now,
            )
        )
        if not whole:
            self._last[agent] = message
        return message


async def run(url: str, pool: Pool) -> None:
    connection = await Connection.open(url.split(","), name="made-up agents", timeout=60)

    async def announce(agent: str, *, whole: bool = False) -> None:
        data = pool.message(agent, whole=whole)
        await connection.publish(subjects.presence(POOL, agent), data)

    async def on_ping(message: Message) -> None:
        asked = msgspec.msgpack.decode(message.data, type=Ping).agent
        if asked in pool.names:
            await announce(asked, whole=True)

    async def announce_all() -> None:
        """Let each agent announce itself at its own time of the beat."""
        began = time.monotonic()
        for number in itertools.count():
            for place, agent in enumerate(pool.names):
                at = began + (number + place / len(pool.names)) * BEAT
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                await announce(agent)

    subscription = await connection.subscribe(subjects.control(POOL), on_ping)
    announcing = asyncio.ensure_future(announce_all())
    print("ready", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    await ended.wait()
    announcing.cancel()
    await asyncio.gather(announcing, return_exceptions=True)
    await subscription.unsubscribe()
    await connection.close()


def main() -> None:
    url, agents, cores, functions, state = sys.argv[1:]
    pool = Pool(int(agents), int(cores), int(functions), busy=state == "busy")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(url, pool))


if __name__ == "__main__":
    main()
