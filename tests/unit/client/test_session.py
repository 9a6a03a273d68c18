"""Sessions: what they open and close, what a call carries, and workers that do not come."""

from __future__ import annotations

import asyncio

import pytest

from jetmap import BrokerUnreachable, Cluster, WorkerStartFailed, task
from jetmap.client import session
from jetmap.client.session import Session
from jetmap.embedded.membership import KeeperSpec
from jetmap.functions.task import find
from jetmap.jobs.service import Jobs
from jetmap.nats.broker import Callback
from jetmap.settings import Settings
from simulated_pool import SimulatedPool
from waiting import wait_until

pytestmark = pytest.mark.anyio

URL = "nats://memory:4222"


@task(name="session.own")
def own(n: int) -> int:
    return n


class FakeMembership:
    """A place at a keeper whose workers fail, or never come."""

    servers = (URL,)
    auth = None
    starter = True

    def __init__(self, failed: str | None = None) -> None:
        self.failed = failed
        self.left = 0

    def on_renewed(self, callback: object) -> None:
        pass

    def on_failed(self, callback: Callback) -> None:
        self.look = callback

    async def leave(self) -> None:
        self.left += 1


def joined(monkeypatch: pytest.MonkeyPatch, membership: FakeMembership) -> list[KeeperSpec]:
    specs: list[KeeperSpec] = []

    async def join(spec: KeeperSpec, timeout: float) -> FakeMembership:
        specs.append(spec)
        return membership

    monkeypatch.setattr(session, "join_keeper", join)
    monkeypatch.setattr(session, "up_to_join", lambda settings, cores: None)
    return specs


async def test_it_opens_and_closes_its_parts(pool: SimulatedPool) -> None:
    opened = await Session.open(Settings(nats_url=URL), share=True)
    assert opened.connection.connected
    await opened.close()
    assert not opened.connection.connected


async def test_an_error_while_opening_closes_what_was_opened(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(self: object) -> None:
        raise BrokerUnreachable("gone again")

    monkeypatch.setattr(Jobs, "start", failing)
    with pytest.raises(BrokerUnreachable, match="gone again"):
        await Session.open(Settings(nats_url=URL), share=True)
    assert [connection.connected for connection in pool._connections] == [False]


async def test_a_part_that_cannot_be_closed_leaves_no_other_open(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Jobs.close

    async def failing(jobs: Jobs) -> None:
        await close(jobs)
        raise BrokerUnreachable("gone again")

    monkeypatch.setattr(Jobs, "close", failing)
    opened = await Session.open(Settings(nats_url=URL), share=True)
    with pytest.raises(BrokerUnreachable, match="gone again"):
        await opened.close()
    assert [connection.connected for connection in pool._connections] == [False]


async def test_a_function_of_the_pool_is_called_by_its_name(pool: SimulatedPool) -> None:
    await pool.agent()
    async with Cluster(URL) as cluster:
        assert await cluster._session.bring(find(own), "session.own") is None
        assert await cluster._session.bring(None, "double") is None


async def test_embedded_workers_get_a_reference_which_is_kept(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.agent()
    membership = FakeMembership()
    joined(monkeypatch, membership)
    async with Cluster(start_timeout=30) as cluster:
        open = cluster._session
        ref = await open.bring(find(own), "session.own")
        assert ref is not None and ref.value is None
        assert (ref.module, ref.qualname) == (__name__, "own")
        assert await open.bring(find(own), "session.own") is ref
        # By a name that no worker has, but this process.
        assert await open.bring(None, "session.own") is ref
        open.forget_references()
        assert await open.bring(find(own), "session.own") is not ref
    assert membership.left == 1


@pytest.mark.parametrize("failed", [None, "ImportError: no module named nope"])
async def test_workers_that_do_not_come(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch, failed: str | None
) -> None:
    membership = FakeMembership(failed)
    joined(monkeypatch, membership)
    message = failed or r"no worker was ready after 0.01 s \(start_timeout\)"
    with pytest.raises(WorkerStartFailed, match=message):
        await Session.open(Settings(start_timeout=0.01), share=True)
    assert membership.left == 1
    assert [connection.connected for connection in pool._connections] == [False]


async def test_a_keeper_that_fails_later_is_not_waited_for(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = FakeMembership()
    joined(monkeypatch, membership)
    opening = asyncio.create_task(Session.open(Settings(start_timeout=3600), share=True))
    await wait_until(lambda: hasattr(membership, "look"), "it waits for workers")
    membership.failed = "the broker is gone"
    await membership.look()
    with pytest.raises(WorkerStartFailed, match="the broker is gone"):
        await opening


async def test_the_keeper_is_that_of_the_application(
    pool: SimulatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.agent()
    specs = joined(monkeypatch, FakeMembership())
    async with Cluster(tasks="a.py", pool="default", cores=2, start_timeout=30):
        pass
    async with Cluster(share=False, start_timeout=30):
        pass
    (first, private) = specs
    assert (first.tasks, first.pool, first.cores) == (["a.py"], "default", "2")
    assert find(own).module in first.modules  # type: ignore[union-attr]
    assert not private.share
