"""The newest known record of every job. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

import msgspec

from .record import JobState, Record

NO_LABELS: Mapping[str, str] = MappingProxyType({})
HIDDEN: frozenset[JobState] = frozenset(("uploading", "deleted"))


class Catalogue:
    """The newest known records of jobs, by their ids.

    changed: called with each record that is newer than the one before.
    """

    def __init__(self, changed: Callable[[Record], None]) -> None:
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

    def on_record(self, record: Record, seq: int) -> None:
        """Keep a stored record. Records may arrive twice, and in any order."""
        if seq > self.seq(record.id):
            self._records[record.id] = record, seq
            self._changed(record)

    def on_removed(self, job: str) -> None:
        """Forget a job whose record has expired or was removed."""
        found = self._records.pop(job, None)
        if found is not None:
            self._changed(msgspec.structs.replace(found[0], state="expired"))

    def clear(self) -> None:
        """Forget every job: the streams were lost."""
        self._records.clear()

    def reserved(self, job: str, before: int | None = None) -> int:
        """Return the bytes of the store that are reserved for other jobs.

        before: ignore what was claimed after this sequence number.
        """
        total = 0
        for record, seq in self._records.values():
            if record.id != job:
                total += record.reserved
                if before is not None and seq > before:
                    total -= record.claimed
        return total

    def page(
        self,
        states: Collection[JobState],
        function: str | None,
        limit: int,
        after: str | None,
        labels: Mapping[str, str] = NO_LABELS,
    ) -> tuple[list[Record], str | None]:
        """Return a page of jobs, newest first, and the ``after`` of the next page, if there is one.

        ``after`` names a position in the order, so it stays valid when the job there is removed.
        Raises ValueError if ``after`` is not valid.
        """
        behind = None if after is None else _place(after)
        found = [
            record
            for record in self
            if record.state not in HIDDEN
            and (not states or record.public_state in states)
            and (function is None or record.function == function)
            and labels.items() <= record.labels.items()
        ]
        found.sort(key=_age, reverse=True)
        if behind is not None:
            found = [record for record in found if _age(record) < behind]
        shown = found[:limit]
        return shown, _text(_age(shown[-1])) if len(found) > limit else None


def is_adoptable(record: Record, me: str, alive: Collection[str]) -> bool:
    """Return whether dispatcher ``me`` should take over an unfinished job whose owner is gone.

    alive: dispatchers that hold a lease.
    """
    if record.state not in ("queued", "running") or record.owner == me:
        return False
    return not record.owner or record.owner not in alive


def is_abandoned(record: Record, me: str, alive: Collection[str], uploads: Collection[str]) -> bool:
    """Return whether the upload of a job's input has stopped. uploads: jobs that ``me`` uploads."""
    if record.state != "uploading":
        return False
    return record.id not in uploads if record.owner == me else record.owner not in alive


def _age(record: Record) -> tuple[float, str]:
    return record.created, record.id


def _text(age: tuple[float, str]) -> str:
    return f"{age[0]!r}_{age[1]}"


def _place(text: str) -> tuple[float, str]:
    created, _, id = text.rpartition("_")
    if not math.isfinite(seconds := float(created)):
        raise ValueError(text)
    return seconds, id
