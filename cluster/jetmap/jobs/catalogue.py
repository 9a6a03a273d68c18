"""Every job's record as this process last heard of it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from .records import Record, State

HIDDEN: frozenset[State] = frozenset(("uploading", "deleted"))


class Catalogue:
    """changed: called with each record that is newer than the one before."""

    def __init__(self, changed: Callable[[Record], None]) -> None:
        self.last = 0  # The highest sequence number heard of.
        self._changed = changed
        self._records: dict[str, tuple[Record, int]] = {}

    def __iter__(self) -> Iterator[Record]:
        return iter([record for record, _ in self._records.values()])

    def get(self, job: str) -> Record | None:
        found = self._records.get(job)
        return found[0] if found is not None else None

    def seq(self, job: str) -> int:
        found = self._records.get(job)
        return found[1] if found is not None else 0

    def heard(self, record: Record, seq: int) -> None:
        """A record was stored. They may come twice, and in any order."""
        self.last = max(self.last, seq)
        if seq > self.seq(record.id):
            self._records[record.id] = record, seq
            self._changed(record)

    def gone(self, job: str, seq: int) -> None:
        """A record has expired."""
        self.last = max(self.last, seq)
        self._records.pop(job, None)

    def clear(self) -> None:
        """The streams are gone, and everything with them."""
        self.last = 0
        self._records.clear()

    def reserved(self) -> int:
        """Bytes of the store that jobs take or may take."""
        return sum(record.reserved for record, _ in self._records.values())

    def listed(
        self, states: Collection[State], function: str | None, limit: int, after: str | None
    ) -> tuple[list[Record], str | None]:
        """A page of jobs, newest first, and where the next one begins, or None."""
        found = [
            record
            for record in self
            if record.state not in HIDDEN
            and (not states or record.state in states)
            and (function is None or record.function == function)
        ]
        found.sort(key=_age, reverse=True)
        if after is not None:
            known = self.get(after)
            if known is not None:
                found = [record for record in found if _age(record) < _age(known)]
            else:
                found = []
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None


def adoptable(record: Record, me: str, alive: Collection[str]) -> bool:
    """Whether a dispatcher shall take the job over: it is to run, and its owner is gone.

    alive: dispatchers that have a lease.
    """
    if record.state not in ("queued", "running") or record.owner == me:
        return False
    return not record.owner or record.owner not in alive


def abandoned(record: Record, me: str, alive: Collection[str]) -> bool:
    """Whether nobody uploads the job's input any more."""
    return record.state == "uploading" and record.owner != me and record.owner not in alive


def _age(record: Record) -> tuple[float, str]:
    return record.created, record.id
