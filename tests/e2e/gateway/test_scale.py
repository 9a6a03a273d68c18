"""A stand-in for an autoscaler, which knows only `GET /scale`, from zero workers and back."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from jetmap import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from real_jobs import submit, until_over
from servers import FUNCTIONS, Site
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio

Scale = Callable[[], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def served_scale(cluster: Cluster) -> AsyncIterator[Scale]:
    """Ask a gateway of this cluster for the load."""
    transport = httpx.ASGITransport(create_app(cluster, Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

        async def scale() -> dict[str, Any]:
            found: dict[str, Any] = (await client.get("/scale")).json()
            return found

        yield scale


async def test_a_job_without_workers_makes_a_scaler_start_one_and_stop_it(place: Site) -> None:
    cluster = await place.cluster()
    first = await place.agent(cluster)
    first.signal(signal.SIGTERM)
    await wait_until(first.has_exited, "the agent has left", 20)
    await wait_until(lambda: not cluster.workers, "it has said so")
    async with served_scale(cluster) as scale:
        assert (await scale())["wanted_cores"] == 0, "nothing waits"
        job = await submit(cluster, "odd_only", [1, 3, 5])

        async def wanted() -> dict[str, Any] | None:
            found = await scale()
            return found if found["wanted_cores"] else None

        found = cast(dict[str, Any], await wait_for(wanted, "a core is wanted", 20))
        assert found["cores"] == 0 and found["backlog_seconds"] > 0
        scaled = await place.agent(cluster, FUNCTIONS)
        assert (await until_over(cluster, job.id)).state == "succeeded"

        async def idle() -> bool:
            return bool((await scale())["wanted_cores"] == 0)

        await wait_for(idle, "no core is wanted any more", 20)
        scaled.signal(signal.SIGTERM)
        await wait_until(scaled.has_exited, "it has left", 20)
