"""The loop of a caller process."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

from .plans import MIXED_WAYS, SPACED_WAYS, Plan, killing_plan, plan, spaced_plan

KILLERS_WAYS = {"library": "stream", "http": "jsonl", "job": "job", "job-http": "job-http"}
KILLERS = {"k": "agent", "o": "agent-once"}


async def until_told(
    name: str,
    seed: int,
    family: str,
    run: Callable[[Plan], Awaitable[None]],
    at_once: int,
) -> None:
    """Run maps, some at once, until ``!`` comes on standard input; then finish the open ones.

    For ``k`` and ``o``, run one more map with an item that kills its agent. If standard input ends
    instead, the soak was killed, and this process ends too.

    family: of ways, a key of MIXED_WAYS; ``spaced-`` before it for those of SPACED_WAYS.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    rng = random.Random(f"{seed} {name}")
    spaced = family.startswith("spaced-")
    ways = (SPACED_WAYS if spaced else MIXED_WAYS)[family.removeprefix("spaced-")]
    next_plan = spaced_plan if spaced else plan
    number = 0
    killing: set[asyncio.Task[None]] = set()

    def told() -> None:
        nonlocal number
        said = os.read(0, 1000)
        if not said:
            os._exit(1)
        for letter in said.decode():
            if letter == "!":
                stop.set()
            else:
                number += 1
                way = KILLERS_WAYS[family.removeprefix("spaced-")]
                draw = random.Random(f"{seed} {name} {number} kills")
                killer = killing_plan(f"{name}.{number}", way, draw, KILLERS[letter])
                killing.add(loop.create_task(_awaited(run(killer))))

    loop.add_reader(0, told)

    async def one_after_the_other() -> None:
        nonlocal number
        while not stop.is_set():
            number += 1
            await run(next_plan(f"{name}.{number}", ways, rng))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
    await asyncio.gather(*killing)
    loop.remove_reader(0)


async def _awaited(running: Awaitable[None]) -> None:
    await running
