"""Accounts that may not do everything: what they lack is named, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import functions
from house import House
from jetmap import Cluster, WorkerStartFailed
from jetmap.agent.agent import Agent
from jetmap.cli.exits import Exit
from jetmap.cli.worker import agent_options
from jetmap.nats.connection import Auth, Connection
from jetmap.nats.errors import Forbidden
from jetmap.nats.server import NatsServer
from jetmap.settings import Settings
from processes import nothing_left
from servers import FUNCTIONS
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio

STREAMS, CONSUMERS = "$JS.API.STREAM.CREATE.>", "$JS.API.CONSUMER.CREATE.>"


class Guarded(NatsServer):
    """admin may do everything; each other user lacks a right."""

    def _configuration(self, directory: Path, log: Path) -> str:
        users = [{"user": "admin", "password": "p"}]
        for name, denied in (("nostreams", STREAMS), ("noconsumers", CONSUMERS)):
            permissions = {"publish": {"deny": [denied]}}
            users.append({"user": name, "password": "p", "permissions": permissions})  # type: ignore[dict-item]
        lines = super()._configuration(directory, log)
        return f"{lines}\nauthorization {{ users: {json.dumps(users)} }}\n"


@pytest.fixture
async def server() -> AsyncIterator[NatsServer]:
    with nothing_left():
        guarded = Guarded()
        await guarded.start()
        try:
            yield guarded
        finally:
            await guarded.stop()


async def connection(server: NatsServer, user: str) -> Connection:
    return await Connection.open(
        [server.url], name=user, auth=Auth(user=user, password="p"), timeout=PATIENCE
    )


def arguments(server: NatsServer, user: str) -> tuple[str, ...]:
    return (FUNCTIONS, "--nats", server.url, "--nats-user", user)


async def test_a_refused_request_ends_at_once(server: NatsServer) -> None:
    low = await connection(server, "nostreams")
    for _ in range(2):
        with pytest.raises(
            Forbidden, match=r"does not let this account create streams: .*JETMAP_X"
        ):
            await low.api("STREAM.CREATE.JETMAP_X", {"name": "JETMAP_X"})
    assert await low.api("INFO")  # Nothing else is forbidden.
    await low.close()


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("nostreams", "does not let this account create streams: allow it to publish to "
         "$JS.API.STREAM.CREATE.JETMAP_WORK_default"),
        pytest.param(
            "noconsumers",
            "does not let this account create consumers: allow it to publish to "
            "$JS.API.CONSUMER.CREATE.JETMAP_WORK_default.",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
async def test_a_worker_ends_and_names_it(
    server: NatsServer, house: House, user: str, said: str
) -> None:
    done = house.run("worker", *arguments(server, user), JETMAP_NATS_PASSWORD="p")
    assert done.returncode == Exit.BROKER, done.stderr
    # The log may say it, too, if a worker was ready before the broker refused.
    assert done.stderr.count(f"jetmap: the NATS server at {server.url} {said}") == 1
    assert " run: " not in done.stderr

    checked = house.run("check", *arguments(server, user), JETMAP_NATS_PASSWORD="p")
    assert checked.returncode == Exit.BROKER
    assert f"✗ broker: the NATS server at {server.url} {said}" in checked.stdout


@pytest.mark.slow
async def test_check_of_one_that_may(server: NatsServer, house: House) -> None:
    checked = house.run("check", *arguments(server, "admin"), JETMAP_NATS_PASSWORD="p")
    assert (checked.returncode, "does not exist yet" in checked.stdout) == (Exit.OK, True)
    admin = await connection(server, "admin")
    assert (await admin.api("STREAM.NAMES"))["total"] == 0  # It makes nothing.
    await admin.close()


@pytest.mark.slow
async def test_streams_that_are_there_need_no_right(server: NatsServer) -> None:
    """And agents that may not take chunks are not sent any; their failure is the caller's."""
    settings = Settings(nats_url=server.url, nats_user="admin", nats_password="p")  # type: ignore[arg-type]
    low = Settings(nats_url=server.url, nats_user="nostreams", nats_password="p")  # type: ignore[arg-type]
    async with Cluster(settings=settings), Cluster(settings=low) as cluster:
        async with agent(server, "noconsumers"):
            await wait_until(lambda: any(p.failure for p in cluster.workers), "it says so")
            (presence,) = cluster.workers
            assert (presence.ready, presence.offer) == (0, "")
            with pytest.raises(WorkerStartFailed, match="create consumers"):
                await cluster.map(functions.is_prime, [7])
        async with agent(server, "nostreams"):
            await wait_until(lambda: any(p.ready for p in cluster.workers), "it is ready")
            assert await cluster.map(functions.is_prime, [7]) == [True]


@asynccontextmanager
async def agent(server: NatsServer, user: str) -> AsyncIterator[None]:
    """One of this process."""
    opened = await connection(server, user)
    started = Agent(opened, agent_options(Settings(tasks=[FUNCTIONS], cores="1")))
    await started.start()
    try:
        yield
    finally:
        await started.stop()
        await opened.close()
