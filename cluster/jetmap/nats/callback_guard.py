"""A guard around callbacks: their exceptions end nothing but themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .broker import Callback, OnMessage, Skip


class CallbackGuard:
    """Wrap callbacks so that those which raise do not end what calls them.

    Args:
        on_failed: Called, while the exception is handled, with the name of the callback.
    """

    def __init__(self, on_failed: Callable[[str], None]) -> None:
        self._on_failed = on_failed

    def of_messages(self, subject: str, callback: OnMessage) -> OnMessage:
        """Guard the callback of a subscription.

        (nats-py silently ends it when the callback awaits a cancelled future.)
        """

        async def guarded(message: Any) -> None:
            try:
                await callback(message)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._on_failed(f"the callback of {subject}")
            except Exception:
                self._on_failed(f"the callback of {subject}")

        return guarded

    def of_skips(self, subject: str, skip: Skip) -> Skip:
        """Guard a function that skips messages; a message with which it fails is not skipped."""

        def guarded(subject_of_message: bytes, payload: bytes) -> bool:
            try:
                return skip(subject_of_message, payload)
            except Exception:
                self._on_failed(f"the callback of {subject}")
                return False

        return guarded

    async def run(self, callback: Callback) -> None:
        """Run the callback of an event."""
        try:
            await callback()
        except Exception:
            self._on_failed("a callback")
