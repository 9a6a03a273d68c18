"""A process that runs jobs, and submits one on demand; to be killed or frozen.

Behind the job's id it prints a line for each write that is refused since another has written.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgspec

from jetmap import Cluster
from jetmap.jobs import running_job, service
from jetmap.jobs.monitor import JobMonitor
from jetmap.jobs.record import Record
from jetmap.jobs.store import Conflict, Store


class Telling(Store):
    async def write(self, record: Record, after: int, *, ttl: float | None = None) -> int:
        try:
            return await super().write(record, after, ttl=ttl)
        except Conflict:
            print(json.dumps("conflict"), flush=True)
            raise


async def _nothing(self: JobMonitor, *_: Any) -> None:
    pass


async def begin(jobs: service.Jobs, function: str, items: list[Any], kwargs: Any) -> str:
    """Submit a job; without a function, run the failed items of the job in ``items`` again."""
    if not function:
        return (await jobs.retry(items[0])).id
    encoded = msgspec.json.encode(kwargs) if kwargs else b""
    upload = await jobs.begin(function, format="json", kwargs=encoded)
    await upload.put([msgspec.json.encode(item) for item in items])
    return (await upload.commit()).id


async def main(url: str, submitted: list[Any] | None, deaf: bool) -> None:
    """deaf: it hears nothing of what others write, and seldom writes itself."""
    service.Store = Telling  # type: ignore[misc]
    if deaf:
        running_job.PROGRESS_SECONDS = 8
        JobMonitor._on_stored = JobMonitor.catch_up = _nothing  # type: ignore[assignment,method-assign]
    async with Cluster(url) as cluster:
        job = ""
        if submitted is not None:
            job = await begin(cluster.jobs, *submitted)
        print(json.dumps(job), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*json.loads(sys.stdin.readline())))
