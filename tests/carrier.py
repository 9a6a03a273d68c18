"""A process that carries jobs, and submits one if it is told to; to be killed or frozen."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgspec

from jetmap import Cluster


async def main(url: str, submitted: list[Any] | None) -> None:
    async with Cluster(url) as cluster:
        job = ""
        if submitted is not None:
            function, items, kwargs = submitted
            upload = await cluster.jobs.begin(
                function, format="json", kwargs=msgspec.json.encode(kwargs) if kwargs else b""
            )
            await upload.put([msgspec.json.encode(item) for item in items])
            job = (await upload.commit()).id
        print(json.dumps(job), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*json.loads(sys.stdin.readline())))
