"""Notice that the client leaves, and cancel what is done for it.

ASGI servers report ``http.disconnect`` only when asked, and Starlette does not ask servers of ASGI
2.4 or later: every map asks for itself.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from .asgi import Receive

# Seconds before the client is watched: a map of one item is over by then. A server that is asked
# later still reports a client that has left.
PATIENCE = 0.01


class DisconnectWatcher:
    """A ``with`` block that ends as soon as the client leaves; ``left`` is then true.

    Put it around everything done for a request, in the request's own task, and after it check
    ``watcher.left``. ``leave`` ends the block. ``watch`` begins to ask ``receive``; call it once
    the body has been read, because both take the same messages. ``answering`` is for callers: an
    answer has begun, so no other can be given.
    """

    def __init__(self) -> None:
        self.left = False
        self.answering = False
        self._done = False
        self._timer: asyncio.TimerHandle | None = None
        # Cancelled by __exit__, which cannot wait for it: it is in ``receive`` and holds nothing.
        self._asking: asyncio.Task[None] | None = None

    def __enter__(self) -> DisconnectWatcher:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        return self

    def watch(self, receive: Receive) -> None:
        """End the block when the client leaves from now on."""
        loop = self._task.get_loop()
        self._timer = loop.call_later(PATIENCE, self._begin, receive)

    def leave(self) -> None:
        """Cancel the block, once."""
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
        if self._asking is not None:
            self._asking.cancel()
        if not self.left:
            return False
        # If others have cancelled the task as well, it stays cancelled.
        ours = self._task.uncancel() <= self._cancelling
        return ours and kind is not None and issubclass(kind, asyncio.CancelledError)

    def _begin(self, receive: Receive) -> None:
        self._asking = self._task.get_loop().create_task(self._ask(receive))

    async def _ask(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except OSError:
            pass  # The server cannot listen any more, so the client is as good as gone.
        self.leave()
