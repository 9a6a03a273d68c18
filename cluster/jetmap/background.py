"""Tasks of one owner, or of one block: none outlives it."""

from __future__ import annotations

import asyncio
import functools
import logging
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


@asynccontextmanager
async def beside(*work: Awaitable[T]) -> AsyncIterator[list[asyncio.Task[T]]]:
    """Run awaitables beside the block; at its end, cancel those that are left, and await them.

    Unlike in a ``TaskGroup``, the block decides what their results and errors mean.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Background:
    """Run coroutines beside their caller.

    Unlike in a ``TaskGroup``, a task that fails leaves the others alone: its failure is logged.

    Args:
        owner: Name of the owner in the log.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task. ``name`` says what it does, in the log and for ``wait``."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def wait(self, name: str, seconds: float) -> None:
        """Wait until no task of this name is left, for at most ``seconds``."""
        if named := [task for task in self._tasks if task.get_name() == name]:
            await asyncio.wait(named, timeout=seconds)

    async def finish(self) -> None:
        """Wait until all tasks have ended by themselves."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel all tasks, except one that calls this, and wait until they have ended."""
        this = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not this]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: %r failed", self._owner, task.get_name(), exc_info=error)


def started(coroutine: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run a coroutine until it ends, or waits; return the rest of it for a task, or None."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that waits for a future, as ``await`` does."""
    while True:
        try:
            arrived = yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:
            step: Callable[[], Any] = functools.partial(coroutine.throw, error)
        else:
            step = functools.partial(coroutine.send, arrived)
        try:
            waits_for = step()
        except StopIteration:
            return
