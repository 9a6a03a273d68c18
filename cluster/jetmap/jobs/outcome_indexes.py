"""The indexes of jobs' outcomes that are kept between requests."""

from __future__ import annotations

from collections import OrderedDict

from .outcome_index import Fold


class Folds:
    """Keeps those that were used last, in so many bytes; the very last one however large it is,
    so that pages of one job do not each begin from the start."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._folds: OrderedDict[str, Fold] = OrderedDict()

    def __contains__(self, job: str) -> bool:
        return job in self._folds

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(fold.memory for fold in self._folds.values())

    def get(self, job: str) -> Fold:
        """A job's, which readers share; they grow while they are read."""
        fold = self._folds.pop(job, None) or Fold()
        self._folds[job] = fold
        size = self.size
        while size > self._max_bytes and len(self._folds) > 1:
            _, oldest = self._folds.popitem(last=False)
            size -= oldest.memory
        return fold

    def drop(self, job: str) -> None:
        self._folds.pop(job, None)
