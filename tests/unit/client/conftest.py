"""A cluster whose jobs are kept in memory, and a pool in memory for real clusters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fake_jobs import FakeJobs, JobCluster
from jetmap.client import job_follower
from jetmap.nats.connection import Connection
from jetmap.nats.memory import MemoryConnection
from simulated_pool import SimulatedPool, Work


@pytest.fixture
async def cluster() -> AsyncIterator[JobCluster]:
    async with JobCluster() as cluster:
        assert cluster.fake is not None
        # Nothing that an upload's end raises may hide the error that led there.
        cluster.fake.leaderless = True
        yield cluster


@pytest.fixture
def jobs(cluster: JobCluster) -> FakeJobs:
    assert cluster.fake is not None
    return cluster.fake


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_follower, "PAUSE", 0.001)


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SimulatedPool]:
    """A broker in memory, which clusters of any address reach; agents have the function double."""

    async def connect(*arguments: object, **options: object) -> MemoryConnection:
        return there._connect("caller")

    monkeypatch.setattr(Connection, "open", connect)
    async with SimulatedPool(work=Work(seconds=lambda item: 0.0)) as there:
        yield there
