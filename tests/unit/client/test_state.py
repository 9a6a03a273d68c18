"""The state of a cluster, and where it may be asked for it."""

from __future__ import annotations

import asyncio
import os
import warnings
from typing import Any

import pytest

from jetmap import (
    Cluster,
    ClusterClosed,
    ConfigurationError,
    JobsUnavailable,
    task,
)
from jetmap.client.state import FORKED
from jetmap.settings import Settings

pytestmark = pytest.mark.anyio

URL = "nats://memory:4222"


@task(name="state.text")
def text(n: int) -> str:
    return str(n)


async def test_inline_there_is_no_pool() -> None:
    async with Cluster(inline=True) as cluster:
        assert cluster.connected and cluster.open_maps == 0
        assert cluster.stats.items_done == 0 and not cluster.pool_counts.items
        info = cluster.info("state.text")
        assert info is not None and info.name == "state.text"
        assert cluster.info("nobody_has_it") is None
        assert cluster.memory is cluster.memory
        with pytest.raises(JobsUnavailable, match="inline=True"):
            _ = cluster.jobs


def test_parameters_beat_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_POOL", "from_environment")
    assert Cluster().settings.broker.pool == "from_environment"
    assert Cluster(pool="mine", tasks="a.py").settings.broker.pool == "mine"
    assert list(Cluster(tasks="a.py").settings.workers.tasks) == ["a.py"]
    settings = Settings(start_timeout=7)
    assert Cluster(settings=settings).settings is settings
    assert Cluster(settings=settings, start_timeout=3).settings.workers.start_timeout == 3
    whole = Cluster(URL, settings=settings, tasks=["b.py"], pool="p", cores="0,2").settings
    assert (whole.broker.nats_url, whole.broker.pool) == (URL, "p")
    assert (list(whole.workers.tasks), whole.workers.cores) == (["b.py"], "0,2")
    assert (whole.workers.start_timeout, settings.broker.pool) == (7, "from_environment")
    with pytest.raises(ConfigurationError, match="cores"):
        _ = Cluster(settings=settings, cores="x").settings
    with pytest.raises(ValueError, match="start_timeout must be"):
        Cluster(start_timeout=-1)


@pytest.mark.parametrize(
    ("argument", "setting", "expected"),
    [(None, False, False), (True, False, True), (None, True, True), (False, True, False)],
)
def test_a_caller_trusts_by_its_argument_or_setting(
    argument: bool | None, setting: bool, expected: bool
) -> None:
    settings = Settings(trust_pickle=setting)
    assert Cluster("nats://h:1", trust_pickle=argument, settings=settings).trusts is expected
    assert Cluster(inline=True, settings=settings).trusts, "it is its own worker"


async def test_only_in_its_own_event_loop() -> None:
    async with Cluster(inline=True) as cluster:

        async def elsewhere() -> None:
            with pytest.raises(ClusterClosed, match="belongs to another event loop"):
                await cluster.map(text, [1])

        await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(ClusterClosed, match="belongs to another event loop"):
            await asyncio.to_thread(cluster.job, "j")


async def test_a_cluster_of_a_parent_process() -> None:
    async with Cluster(inline=True) as cluster:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside other threads.
            pid = os.fork()
        if not pid:
            code = 1
            try:
                cluster._check()
            except ClusterClosed as error:
                code = 0 if cluster.is_foreign and str(error) == FORKED else 2
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not cluster.is_foreign
