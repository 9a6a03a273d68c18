"""The loop of a caller process."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

from .plans import Plan, plan


async def until_told(
    name: str,
    rng: random.Random,
    ways: dict[str, int],
    run: Callable[[Plan], Awaitable[None]],
    at_once: int,
) -> None:
    """Runs maps, some at once, until a byte comes on standard input; then those that are open to
    their end. If standard input ends instead, the soak was killed, and this process ends too."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        if not os.read(0, 1000):
            os._exit(1)
        stop.set()

    loop.add_reader(0, told)
    number = 0

    async def one_after_the_other() -> None:
        nonlocal number
        while not stop.is_set():
            number += 1
            await run(plan(f"{name}.{number}", ways, rng))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
    loop.remove_reader(0)
