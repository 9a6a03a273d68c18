"""A caller in a process of its own, to be killed or frozen; prints the sum of its values."""

from __future__ import annotations

import asyncio
import json
import sys

from functions import logged
from jetmap import Cluster


async def main(url: str, log: str, count: int, seconds: float) -> None:
    async with Cluster(url) as cluster:
        items = [(n, seconds) for n in range(count)]
        print(json.dumps(sum(await cluster.map(logged, items, kwargs={"log": log}))))


if __name__ == "__main__":
    asyncio.run(main(*json.loads(sys.argv[1])))
