"""The requests of a connection that wait for their answers, by subject."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class OpenRequests:
    """End the requests on subjects that the server refuses; their answers would never come.

    nats-py turns the server's errors into lower case, and so are all subjects here.
    """

    def __init__(self) -> None:
        self._open: dict[str, set[asyncio.Timeout]] = {}
        self._refused: set[str] = set()

    @contextmanager
    def add(self, subject: str, patience: asyncio.Timeout) -> Iterator[None]:
        """Keep a request until the block ends. patience: expires when its subject is refused."""
        key = subject.lower()
        requests = self._open.setdefault(key, set())
        if not requests:
            self._refused.discard(key)
        requests.add(patience)
        try:
            yield
        finally:
            requests.discard(patience)
            if not requests and self._open.get(key) is requests:
                del self._open[key]

    def refuse(self, subject: str) -> bool:
        """End the requests on a refused subject; return whether there were any."""
        requests = self._open.get(subject.lower(), set())
        if requests:
            self._refused.add(subject.lower())
        now = asyncio.get_running_loop().time()
        for patience in requests:
            patience.reschedule(now)
        return bool(requests)

    def was_refused(self, subject: str) -> bool:
        """Return whether the latest requests on a subject were refused."""
        return subject.lower() in self._refused
