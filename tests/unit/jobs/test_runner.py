"""The jobs that run here, their number at once, and their fate when this process closes."""

from __future__ import annotations

import asyncio

from jetmap.jobs.service import Jobs
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from virtual_time import run


@in_a_pool(cores=2, seconds=0.5, max_running_jobs=1)
async def test_jobs_beyond_the_limit_wait_in_order(pool: JobPool, jobs: Jobs) -> None:
    ids = [(await submitted(jobs, [1, 2, 3, 4])).id for _ in range(3)]
    finished = []
    while len(finished) < 3:
        await asyncio.sleep(0.1)
        records = [await jobs.get(id) for id in ids]
        assert sum(r.state == "running" for r in records) <= 1
        finished += [r.id for r in records if r.is_over and r.id not in finished]
    assert finished == ids


def test_work_that_waits_is_counted_as_backlog() -> None:
    async def scenario() -> None:
        async with JobPool() as pool:
            agent = await pool.agent(1)
            jobs = await pool.gateway()
            await ended(jobs, (await submitted(jobs, [1])).id)
            await agent.stop()
            pool._agents.remove(agent)
            id = (await submitted(jobs, [1, 2, 3])).id
            await asyncio.sleep(5)
            assert jobs._runner.parked() == [("double", 3)]
            stats = jobs._dispatcher.stats
            assert (stats.backlog_items, stats.maps_open) == (3, 0)
            await pool.agent(1)
            await ended(jobs, id)
            await asyncio.sleep(2)
            assert (jobs._runner.parked(), stats.backlog_items) == ([], 0)

    run(scenario())
