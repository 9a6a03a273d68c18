"""Waiting until something has happened. Whatever a test waits for, it waits for it here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

POLL = 0.005  # Seconds between two looks.
# Seconds to wait for what takes a moment: a machine may stop for twenty at any point, and be slow
# for longer. It costs nothing where nothing is wrong.
PATIENCE = 120.0

T = TypeVar("T")


async def wait_until(
    predicate: Callable[[], Any],
    what: str,
    timeout: float = PATIENCE,
    show: Callable[[], Any] = str,
) -> None:
    """Poll until the predicate holds. show: text to add to the failure's message."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout:g} s {show()}")
        await asyncio.sleep(POLL)


async def wait_for(
    ask: Callable[[], Awaitable[T]],
    what: str,
    timeout: float = PATIENCE,
    show: Callable[[], Any] = str,
) -> T:
    """Poll an asynchronous question until it has an answer, and return that."""
    deadline = time.monotonic() + timeout
    while not (found := await ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout:g} s {show()}")
        await asyncio.sleep(4 * POLL)
    return found


def wait_until_sync(predicate: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """Poll, in a test without an event loop, until there is an answer, and return that."""
    deadline = time.monotonic() + timeout
    while not (found := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout:g} s")
        time.sleep(2 * POLL)
    return found


async def until(at: float) -> None:
    """Wait until this time of the monotonic clock, where the fault itself lasts that long."""
    await wait_until(lambda: time.monotonic() >= at, "time passes", at - time.monotonic() + 1)


async def turns(count: int = 1) -> None:
    """Let everything else of the loop run this number of times: all that can happen without
    time or I/O has happened."""
    for _ in range(count):
        await asyncio.sleep(0)
