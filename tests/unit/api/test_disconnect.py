"""A client that leaves ends what is done for it, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap_api import disconnect
from jetmap_api.disconnect import DisconnectWatcher

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "PATIENCE", 0)


async def test_leaving_ends_the_block_and_not_the_task() -> None:
    with DisconnectWatcher() as watcher:
        watcher.leave()
        await asyncio.sleep(0)
        raise AssertionError("the block goes on")
    assert watcher.left
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_disconnect_ends_the_block() -> None:
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    with DisconnectWatcher() as watcher:
        watcher.watch(receive)
        await asyncio.Event().wait()
    assert watcher.left and not messages


async def test_a_server_that_cannot_listen_any_more_counts_as_a_disconnect() -> None:
    async def receive() -> Any:
        raise OSError("closed")

    with DisconnectWatcher() as watcher:
        watcher.watch(receive)
        await asyncio.Event().wait()
    assert watcher.left


async def test_after_the_block_nothing_is_asked_and_nothing_is_cancelled() -> None:
    asked = asyncio.Event()

    async def receive() -> Any:
        asked.set()
        return await asyncio.Event().wait()

    with DisconnectWatcher() as watcher:
        watcher.watch(receive)
        await asked.wait()
    watcher.leave()
    await asyncio.sleep(0)
    assert not watcher.left


async def test_a_block_that_ends_early_is_never_watched() -> None:
    async def receive() -> Any:
        raise AssertionError("asked")

    with DisconnectWatcher() as watcher:
        watcher.watch(receive)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not watcher.left


async def test_a_cancellation_by_others_goes_on() -> None:
    begun = asyncio.Event()
    watchers: list[DisconnectWatcher] = []

    async def serve() -> None:
        with DisconnectWatcher() as watcher:
            watchers.append(watcher)
            begun.set()
            await asyncio.Event().wait()

    for leaves in (False, True):
        begun.clear()
        task = asyncio.create_task(serve())
        await begun.wait()
        if leaves:
            watchers[-1].leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_errors_of_the_block_pass() -> None:
    with pytest.raises(ValueError), DisconnectWatcher():
        raise ValueError
