"""Jobs on a pool in virtual time: real stores, runners, dispatchers and agents."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from jetmap.jobs.record import Record
from jetmap.jobs.service import Jobs
from jetmap.settings import Settings
from jetmap.wire.messages import encode
from simulated_pool import FUNCTION, SimulatedPool, Work
from virtual_time import run


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


def in_a_pool(
    *, cores: int = 1, gateways: int = 1, seconds: float | None = None, **settings: object
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Run a test in virtual time, with a pool of its own: ``test(pool, *gateways, …)``.

    Args:
        cores: Of the agent.
        gateways: The number of gateways, which have these settings.
        seconds: Time that an item takes.
    """

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        def in_virtual_time(*drawn: Any, **given: Any) -> None:
            async def scenario() -> None:
                work = Work() if seconds is None else Work(seconds=lambda item: seconds)
                async with JobPool(work=work) as pool:
                    await pool.agent(cores)
                    there = [await pool.gateway(**settings) for _ in range(gateways)]
                    await test(pool, *there, *drawn, **given)

            run(scenario())

        # What pytest and hypothesis pass.
        signature = inspect.signature(test)
        passed = list(signature.parameters.values())[1 + gateways :]
        in_virtual_time.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=passed, return_annotation=None
        )
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(in_virtual_time, name, getattr(test, name))
        return in_virtual_time

    return decorate
