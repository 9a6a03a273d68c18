"""Failures of a dispatcher's items, grouped by cause and kept for an hour. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jetmap.wire.activity import FailureActivity, FailureDetails
from jetmap.wire.messages import ErrorRecord

KEPT_SECONDS = 3600.0  # Seconds for which a cause is kept after its latest failure.
MOST_GROUPS = 200  # Causes kept; the one that is longest ago makes room for a new one.
SLICE_SECONDS = 120.0  # Seconds of one count.
SLICES = 30
MESSAGE_LENGTH = 200  # Characters of a message that are shown.
MOST_HOSTS = 8
MOST_INDEXES = 8
MOST_MAPS = 8

_NUMBERS = re.compile(r"\d[\d.,_]*|0x[0-9a-fA-F]+")


@dataclass
class FailureGroup:
    """Failures of one cause. Times are seconds of the dispatcher's clock."""

    key: str
    function: str
    kind: str
    type: str
    message: str
    first: float
    last: float
    traceback: str | None
    count: int = 0
    hosts: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    maps: dict[str, int] = field(default_factory=dict)  # Failures by map, of the latest maps.
    job: str = ""
    slices: dict[int, int] = field(default_factory=dict)

    def activity(self, now: float) -> FailureActivity:
        current = int(now / SLICE_SECONDS)
        counts = [self.slices.get(current - SLICES + 1 + i, 0) for i in range(SLICES)]
        return FailureActivity(
            self.key,
            self.function,
            self.kind,
            self.type,
            self.message,
            self.count,
            now - self.first,
            now - self.last,
            counts,
            self.hosts[:MOST_HOSTS],
            self.indexes,
            self.job,
        )


class Failures:
    """The causes of the last hour. A message's numbers do not make another cause of it.

    Args:
        clock: Returns the seconds of the dispatcher's clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._groups: dict[str, FailureGroup] = {}

    def add(
        self,
        map: str,
        job: str | None,
        function: str,
        records: Iterable[ErrorRecord],
    ) -> None:
        """Record the errors of some items of a map. job: the job that it runs, if it does."""
        now = self._clock()
        for record in records:
            group = self._group(function, record, now)
            group.count += 1
            group.last = now
            number = int(now / SLICE_SECONDS)
            group.slices[number] = group.slices.get(number, 0) + 1
            if len(group.slices) > SLICES:
                group.slices.pop(min(group.slices), None)
            where = str((record.detail or {}).get("host", ""))
            if where and where not in group.hosts and len(group.hosts) <= MOST_HOSTS:
                group.hosts.append(where)
            if len(group.indexes) < MOST_INDEXES:
                group.indexes.append(record.index)
            group.maps[map] = group.maps.pop(map, 0) + 1
            if len(group.maps) > MOST_MAPS:
                del group.maps[next(iter(group.maps))]
            group.job = job or ""

    def recent(self) -> list[FailureGroup]:
        """Return the causes of the last hour, the most frequent first; forget older ones."""
        now = self._clock()
        for key, group in list(self._groups.items()):
            if now - group.last > KEPT_SECONDS:
                del self._groups[key]
        return sorted(self._groups.values(), key=lambda group: -group.count)

    def of_map(self, map: str) -> list[FailureActivity]:
        """Return the causes that a map met, with its own numbers of failures."""
        found, now = [], self._clock()
        for group in self.recent():
            if map in group.maps:
                activity = group.activity(now)
                activity.count = group.maps[map]
                found.append(activity)
        return found

    def details(self, key: str) -> FailureDetails | None:
        group = self._groups.get(key)
        return None if group is None else FailureDetails(key, group.traceback, list(group.maps))

    def _group(self, function: str, record: ErrorRecord, now: float) -> FailureGroup:
        key, message = grouped_cause(function, record)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                oldest = min(self._groups.values(), key=lambda group: group.last)
                del self._groups[oldest.key]
            group = self._groups[key] = FailureGroup(
                key, function, record.kind, record.type, message, now, now, record.traceback
            )
        return group


def grouped_cause(function: str, record: ErrorRecord) -> tuple[str, str]:
    """Return the key of an error's cause, and its message, cut."""
    message = record.message[:MESSAGE_LENGTH]
    cause = "\0".join((function, record.kind, record.type, _NUMBERS.sub("#", message)))
    key = hashlib.blake2b(cause.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return key, message
