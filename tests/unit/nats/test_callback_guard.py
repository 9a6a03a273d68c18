"""A callback that fails ends neither its subscription nor the reader; a cancelled task ends."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.nats.callback_guard import CallbackGuard

pytestmark = pytest.mark.anyio


async def test_callbacks_that_raise_are_reported_by_name() -> None:
    failed: list[str] = []
    guard = CallbackGuard(failed.append)

    async def on_message(message: object) -> None:
        # The second as if the callback had awaited a future that somebody cancelled.
        raise asyncio.CancelledError if message == "cancelled" else ValueError(message)

    async def on_event() -> None:
        raise ValueError("of an event")

    def skip(subject: bytes, payload: bytes) -> bool:
        if payload == b"bad":
            raise ValueError(payload)
        return payload == b"old"

    guarded = guard.of_messages("a", on_message)
    await guarded("one")
    await guarded("cancelled")
    await guard.run(on_event)
    assert failed == ["the callback of a", "the callback of a", "a callback"]
    failed.clear()
    skips = guard.of_skips("b", skip)
    assert [skips(b"b", payload) for payload in (b"old", b"new", b"bad")] == [True, False, False]
    assert failed == ["the callback of b"]


async def test_the_task_of_a_callback_can_be_cancelled() -> None:
    failed: list[str] = []

    async def on_message(message: object) -> None:
        await asyncio.Event().wait()

    guarded = CallbackGuard(failed.append).of_messages("a", on_message)
    task = asyncio.ensure_future(guarded("one"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not failed
