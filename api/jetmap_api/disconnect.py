"""Notices that the client leaves, and cancels what is done for it.

ASGI servers say ``http.disconnect`` only to those who ask, and Starlette no longer asks
for servers of ASGI 2.4 or later: so every map asks for itself.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from .asgi import Receive

# A one-item map is over before anyone asks; later, the server still remembers the departure.
PATIENCE = 0.01


class Departure:
    """A block that ends as soon as the client leaves; ``left`` is then true. ``answering`` is
    for whoever uses it: whether an answer has begun, so that no other can be given.

    Use it around everything that is done for one request, in the request's own task, and
    after it: ``if departure.left: return``. ``leave`` ends the block; ``watch`` begins to
    ask ``receive`` for it (only once the body has been read: both take the same messages).
    """

    def __init__(self) -> None:
        self.left = False
        self.answering = False
        self._done = False
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Departure:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        return self

    def watch(self, receive: Receive) -> None:
        loop = self._task.get_loop()
        self._timer = loop.call_later(PATIENCE, self._begin, receive)

    def leave(self) -> None:
        """Cancels the block, once."""
        if not self.left and not self._done:
            self.left = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._done = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.left:
            return False
        # Someone else may have cancelled the task too: then it stays cancelled.
        ours = self._task.uncancel() <= self._cancelling
        return ours and kind is not None and issubclass(kind, asyncio.CancelledError)

    def _begin(self, receive: Receive) -> None:
        self._watcher = self._task.get_loop().create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except OSError:
            pass  # a server that cannot listen any more: the client is as good as gone
        self.leave()
