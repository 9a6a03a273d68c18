"""Recently read messages of jobs, for the next reader of the same messages."""

from __future__ import annotations

from collections import OrderedDict

from .store import StoredMessage

Request = tuple[str, int, int, int]  # Job, after, messages, max_bytes.


class MessageCache:
    """Least-recently-used cache of messages, limited to ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._found: OrderedDict[Request, list[StoredMessage]] = OrderedDict()

    def get(self, request: Request) -> list[StoredMessage] | None:
        found = self._found.get(request)
        if found is not None:
            self._found.move_to_end(request)
        return found

    def put(self, request: Request, found: list[StoredMessage]) -> None:
        if request not in self._found:
            self._found[request] = found
            self.size += _bytes(found)
        while self.size > self._max_bytes:
            _, oldest = self._found.popitem(last=False)
            self.size -= _bytes(oldest)

    def drop(self, job: str) -> None:
        """Forget the messages of one job."""
        for request in [request for request in self._found if request[0] == job]:
            self.size -= _bytes(self._found.pop(request))


def _bytes(found: list[StoredMessage]) -> int:
    return sum(len(stored.data) + 100 for stored in found)
