"""Tasks that run beside their caller."""

from __future__ import annotations

import asyncio
import logging

import pytest

from jetmap.background import Background, beside, started

pytestmark = pytest.mark.anyio


async def test_a_failure_is_logged_by_name_and_leaves_the_others_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    background, release = Background("the owner"), asyncio.Event()

    async def fail() -> None:
        raise ValueError("broken")

    async def work() -> str:
        await release.wait()
        return "done"

    other = background.spawn(work(), "work")
    with caplog.at_level(logging.ERROR):
        await asyncio.wait({background.spawn(fail(), "fail")})
        await asyncio.sleep(0)
    assert "the owner: 'fail' failed" in caplog.text
    assert "ValueError: broken" in caplog.text
    assert len(background) == 1
    release.set()
    assert await other == "done"


async def test_waiting_is_for_one_name_and_bounded() -> None:
    background, release = Background("the owner"), asyncio.Event()

    async def work() -> None:
        await release.wait()

    long = background.spawn(work(), "long")
    short = background.spawn(asyncio.sleep(0), "short")
    await background.wait("short", 60)
    assert short.done()
    await background.wait("long", 0)
    assert not long.done()
    await background.close()
    assert long.cancelled()
    await background.wait("long", 60)


async def test_a_task_may_close_its_own_background() -> None:
    background, closed = Background("the owner"), asyncio.Event()

    async def end() -> None:
        await background.close()
        closed.set()

    other = background.spawn(asyncio.Event().wait(), "wait for ever")
    await asyncio.sleep(0)
    background.spawn(end(), "close")
    await closed.wait()
    assert other.cancelled()


async def test_work_beside_a_block_ends_with_it() -> None:
    never, ended = asyncio.Event(), []

    async def wait() -> None:
        try:
            await never.wait()
        finally:
            ended.append("wait")

    async def fail() -> None:
        raise ValueError("not asked for")

    async with beside(wait(), fail()) as tasks:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in tasks] == [False, True]
    assert ended == ["wait"] and tasks[0].cancelled()
    with pytest.raises(LookupError):
        async with beside(wait()) as tasks:
            await asyncio.sleep(0)
            raise LookupError
    assert ended == ["wait", "wait"]


async def test_a_coroutine_that_waits_for_nothing_needs_no_task() -> None:
    done: list[str] = []

    async def work(gate: asyncio.Event | None) -> None:
        if gate is not None:
            await gate.wait()
        done.append("done")

    assert started(work(None)) is None and done == ["done"]
    gate = asyncio.Event()
    rest = started(work(gate))
    assert rest is not None and done == ["done"]
    gate.set()
    await rest
    assert done == ["done", "done"]
