"""Another process of the same application: prints what it found, and stays on demand."""

from __future__ import annotations

import asyncio
import json
import sys

from functions import is_prime
from jetmap import Cluster


async def main(tasks: str, *, stay: bool) -> None:
    async with Cluster(tasks=tasks) as cluster:
        values = await cluster.map(is_prime, [7, 8])
        agents = [presence.agent for presence in cluster.workers]
        print(json.dumps({"agents": agents, "values": values}), flush=True)
        if stay:
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], stay="stay" in sys.argv))
