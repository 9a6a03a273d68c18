"""A caller that sends large items and reads nothing back, to be killed.

Reads [url, items, bytes of each] from stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys

from functions import echo
from jetmap import Cluster


async def main(url: str, count: int, size: int) -> None:
    async with Cluster(url) as cluster:
        await cluster.map(echo, [bytes(size)] * count, kwargs={"seconds": 1.0})


if __name__ == "__main__":
    asyncio.run(main(*json.load(sys.stdin)))
