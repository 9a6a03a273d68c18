"""Jobs on a pool in virtual time: real stores, runners, dispatchers and agents."""

from __future__ import annotations

import asyncio

from jetmap.jobs.record import Record
from jetmap.jobs.service import Jobs
from jetmap.settings import Settings
from jetmap.wire.messages import encode
from simulated_pool import FUNCTION, SimulatedPool


class JobPool(SimulatedPool):
    """A pool with gateways that run jobs."""

    async def gateway(self, **settings: object) -> Jobs:
        """Start a dispatcher and the jobs on it."""
        dispatcher = await self.dispatcher()
        jobs = Jobs(dispatcher._connection, dispatcher, Settings.load(**settings))  # type: ignore[arg-type]
        await jobs.start()
        self._gateways.append(jobs)
        return jobs

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._gateways: list[Jobs] = []

    async def __aexit__(self, *raised: object) -> None:
        for jobs in self._gateways:
            await jobs.close()
        await super().__aexit__(*raised)

    async def crash(self, jobs: Jobs) -> None:
        """End a gateway as SIGKILL does: nothing is released."""
        self._gateways.remove(jobs)
        dispatcher = jobs._dispatcher
        self._dispatchers.remove(dispatcher)
        await dispatcher._connection.close()
        await jobs.close()
        await dispatcher.close()


async def submitted(jobs: Jobs, items: list[int], **options: object) -> Record:
    """Submit a job of FUNCTION."""
    upload = await jobs.begin(FUNCTION, format="msgpack", **options)  # type: ignore[arg-type]
    await upload.put([encode(item) for item in items])
    return await upload.commit()


async def ended(jobs: Jobs, id: str) -> Record:
    """Return a job's record when the job is over."""
    while not (record := await jobs.get(id)).is_over:  # noqa: ASYNC110 - the record is in a store.
        await asyncio.sleep(0.5)
    return record
