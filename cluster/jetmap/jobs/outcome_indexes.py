"""Cache of outcome indexes between requests."""

from __future__ import annotations

from collections import OrderedDict

from .outcome_index import OutcomeIndex


class OutcomeIndexes:
    """Least-recently-used cache of indexes, limited to ``max_bytes``.

    The most recent index stays, whatever its size, so that each page of a large job does not
    start from the beginning.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._indexes: OrderedDict[str, OutcomeIndex] = OrderedDict()

    def __contains__(self, job: str) -> bool:
        return job in self._indexes

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(index.memory for index in self._indexes.values())

    def get(self, job: str) -> OutcomeIndex:
        """The index of a job, which its readers share and extend."""
        index = self._indexes.pop(job, None) or OutcomeIndex()
        self._indexes[job] = index
        size = self.size
        while size > self._max_bytes and len(self._indexes) > 1:
            _, oldest = self._indexes.popitem(last=False)
            size -= oldest.memory
        return index

    def drop(self, job: str) -> None:
        self._indexes.pop(job, None)
