"""A caller in a process of its own, to be killed, frozen or cut off.

Reads [url, log, [[item, seconds], …]] from stdin. At the end it prints [values, chunks sent again,
reports that told what was known]; a value is the item's number, or the error's type.
"""

from __future__ import annotations

import asyncio
import json
import sys

from functions import logged
from jetmap import Cluster
from servers import account


async def main(url: str, log: str, items: list[tuple[int, float]]) -> None:
    async with Cluster(url) as cluster:
        stream = cluster.stream(logged, items, kwargs={"log": log})
        first = await anext(stream)
        ledger = account(cluster)
        found = sorted([first, *[outcome async for outcome in stream]], key=lambda o: o.index)
        values = [o.value if o.ok else type(o.error).__name__ for o in found]
        print(json.dumps([values, cluster.stats.chunks_again.total(), ledger.repeats]))


if __name__ == "__main__":
    asyncio.run(main(*json.load(sys.stdin)))
