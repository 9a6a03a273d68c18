"""Clusters started without an event loop of asyncio."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest

from jetmap import Cluster
from jetmap.client.event_loop import running_loop
from jetmap.errors import ClusterClosed


async def _loop() -> bool:
    return running_loop() is asyncio.get_running_loop()


def start_without_asyncio() -> None:
    """Start a cluster as another library does, which steps through coroutines by itself."""
    Cluster(inline=True).__aenter__().send(None)


def test_asyncio() -> None:
    assert asyncio.run(_loop())


def test_trio_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    running = SimpleNamespace(current_async_library=lambda: "trio")
    monkeypatch.setitem(sys.modules, "sniffio", running)
    with pytest.raises(
        ClusterClosed, match=r"runs on asyncio, and this is trio.*Cluster\(\)\.sync"
    ):
        start_without_asyncio()


@pytest.mark.parametrize("has_sniffio", [True, False])
def test_no_loop_at_all(monkeypatch: pytest.MonkeyPatch, has_sniffio: bool) -> None:
    def current_async_library() -> str:
        raise RuntimeError("unknown async library, or not in async context")

    running = SimpleNamespace(current_async_library=current_async_library)
    monkeypatch.setitem(sys.modules, "sniffio", running if has_sniffio else None)
    with pytest.raises(ClusterClosed, match="starts in a running event loop of asyncio"):
        start_without_asyncio()
