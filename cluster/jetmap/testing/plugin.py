"""The pytest plug-in: fixtures with a cluster. Nothing of jetmap is imported until one is used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jetmap import Cluster, SyncCluster

# Seconds to wait at the end of a measured session for the workers, which others may be using.
MEASURED_SECONDS = 30.0


@pytest.fixture(scope="session")
def jetmap_options() -> dict[str, Any]:
    """The options of ``Cluster`` for ``jetmap_cluster``. Override it to choose others."""
    return {}


@pytest.fixture
def jetmap_cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster with real workers for an async test.

    It joins the embedded cluster of the test session, which has two workers and starts at the
    first use. Neither a `jetmap up` of this directory nor the setting ``nats_url`` counts.
    """
    request.getfixturevalue("_jetmap_session")
    cluster: Cluster = _of_loop(request, "cluster")
    return cluster


@pytest.fixture
def jetmap_cluster_sync(
    _jetmap_session: None, jetmap_options: dict[str, Any]
) -> Iterator[SyncCluster]:
    """The same cluster for a test that is not async."""
    with _cluster(jetmap_options).sync as cluster:
        yield cluster


@pytest.fixture
def jetmap_inline(request: pytest.FixtureRequest) -> Cluster:
    """A cluster for an async test, without processes: functions run in a thread of this one."""
    cluster: Cluster = _of_loop(request, "inline")
    return cluster


@pytest.fixture
def jetmap_inline_sync() -> Iterator[SyncCluster]:
    """The same cluster for a test that is not async."""
    from jetmap import Cluster

    with Cluster(inline=True).sync as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _jetmap_session(jetmap_options: dict[str, Any]) -> Iterator[None]:
    """Keep the embedded cluster from ending between two tests."""
    import psutil

    with _cluster(jetmap_options).sync as cluster:
        keeper = cluster._cluster.keeper_pid
        yield
    if keeper is not None and {"COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"} & {*os.environ}:
        # The workers write what coverage measured when they end, and pytest-cov reads it next.
        with contextlib.suppress(psutil.Error):
            psutil.Process(keeper).wait(MEASURED_SECONDS)


def _of_plugin(fixture: Any) -> tuple[Any, Any]:
    """Make the fixtures of the two clusters that run in the event loop of their test."""

    async def cluster(jetmap_options: dict[str, Any]) -> AsyncIterator[Cluster]:
        async with _cluster(jetmap_options) as cluster:
            yield cluster

    async def inline() -> AsyncIterator[Cluster]:
        from jetmap import Cluster

        async with Cluster(inline=True) as cluster:
            yield cluster

    return fixture(cluster), fixture(inline)


# anyio runs async fixtures of any kind; pytest-asyncio, unless it is in auto mode, only its own.
_jetmap_cluster_anyio, _jetmap_inline_anyio = _of_plugin(pytest.fixture)


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixtures that pytest-asyncio runs, if it is there."""
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio

        of_asyncio = ModuleType("jetmap_of_asyncio")
        cluster, inline = _of_plugin(pytest_asyncio.fixture)
        of_asyncio.__dict__.update(_jetmap_cluster_asyncio=cluster, _jetmap_inline_asyncio=inline)
        config.pluginmanager.register(of_asyncio)


def _cluster(options: dict[str, Any]) -> Cluster:
    from jetmap import Cluster
    from jetmap.client import session
    from jetmap.settings import Settings

    session.runs_tests = True
    settings = Settings.load(join_up=False).replace(nats_url=None)
    return Cluster(**{"cores": 2, "settings": settings, **options})


def _of_loop(request: pytest.FixtureRequest, kind: str) -> Any:
    """Return a cluster that was started in the event loop of the test."""
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        name = backend if isinstance(backend, str) else backend[0]
        if name != "asyncio":
            pytest.fail(f"jetmap_{kind} needs anyio's backend asyncio, not {name}", pytrace=False)
        return request.getfixturevalue(f"_jetmap_{kind}_anyio")
    if request.config.pluginmanager.hasplugin("asyncio"):
        return request.getfixturevalue(f"_jetmap_{kind}_asyncio")
    return pytest.fail(
        f"jetmap_{kind} is for async tests, which need pytest-asyncio or @pytest.mark.anyio; "
        f"use jetmap_{kind}_sync in others",
        pytrace=False,
    )
