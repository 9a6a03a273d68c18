"""Blocking classes, made from ``client/stream.py`` by ``scripts/unasync.py``."""

from __future__ import annotations

from jetmap.client.blocking import BlockingStream
from jetmap.client.stream import Stream
from jetmap.dispatch.outcomes import X, Y


class SyncStream(BlockingStream[X, Y]):
    """An iterator, and a context manager, of ``Outcome``.

    The map starts when its first outcome is read. Leaving the ``with`` withdraws what is not
    done. A failed item is an outcome with an ``error``; it does not raise. After the outcomes of
    the items before, the stream raises what ``items`` raised.

    Raises:
        MapTimeout: The map did not end within its ``timeout``.
        ClusterClosed: The stream is read in a forked process.
    """

    _stream: Stream[X, Y]

    @property
    def total(self) -> int | None:
        """Number of items; None until it is known."""
        return self._stream.total

    @property
    def done(self) -> int:
        """Number of items that have an outcome, whether it was read or not."""
        return self._stream.done

    def __len__(self) -> int:
        """Number of items. Raises TypeError while it is not known."""
        total = self.total
        if total is None:
            raise TypeError("the number of items is not known yet: see the stream's total")
        return total

    def __bool__(self) -> bool:
        """Return True: a stream without items is a stream."""
        return True
