"""A caller that puts an array and uses it for ever, to be killed. Its argument is a URL."""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from jetmap import Cluster
from put_functions import pick


async def main(url: str) -> None:
    async with Cluster(url) as cluster:
        ref = await cluster.put(np.arange(1_000_000))
        await cluster.map(pick, range(10_000), kwargs={"table": ref, "seconds": 1.0})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
