"""Group a job's failures by cause, as the store has them: the process that ran it may be gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jetmap.dispatch.failures import MOST_HOSTS, MOST_INDEXES, grouped_cause
from jetmap.wire import subjects
from jetmap.wire.activity import FailureActivity
from jetmap.wire.messages import ErrorRecord

from .outcomes import StoredOutcomes
from .record import Record
from .store import Store

MOST_FAILURES = 1000  # Failed items that are read.
MOST_CAUSES = 50  # Causes that are shown, the most frequent ones.


@dataclass(frozen=True)
class StoredCause:
    """Failures of one cause. traceback: of the first that was stored."""

    activity: FailureActivity
    traceback: str | None


@dataclass(frozen=True)
class StoredCauses:
    """Causes of a job's failures, the most frequent first. more: whether some are left out."""

    causes: list[StoredCause]
    more: bool


@dataclass
class _Group:
    """Failures of one cause. first, last: numbers of the messages that stored them."""

    key: str
    message: str
    record: ErrorRecord
    first: int
    last: int
    count: int = 0
    hosts: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)

    def add(self, record: ErrorRecord, seq: int) -> None:
        self.count += 1
        self.last = seq
        host = str((record.detail or {}).get("host", ""))
        if host and host not in self.hosts and len(self.hosts) < MOST_HOSTS:
            self.hosts.append(host)
        if len(self.indexes) < MOST_INDEXES:
            self.indexes.append(record.index)


async def stored_causes(store: Store, outcomes: StoredOutcomes, record: Record) -> StoredCauses:
    """Read the causes of a job's failed items. Raises BrokerUnreachable, JobEnded."""
    errors, following = await outcomes.failures(0, MOST_FAILURES)
    spans = ((outcomes.index.at(error.index), error) for error in errors)
    stored = [(span.seq, error.index, error) for span, error in spans if span is not None]
    groups = _grouped(record.function, sorted(stored, key=lambda each: each[:2]))
    shown = sorted(groups, key=lambda group: -group.count)[:MOST_CAUSES]
    subject = subjects.job_outcomes(store.pool, record.id)
    ages = await store.ages("OUTCOMES", subject, {n for g in shown for n in (g.first, g.last)})
    causes = [
        StoredCause(_activity(group, record, ages), group.record.traceback) for group in shown
    ]
    return StoredCauses(causes, following is not None or len(shown) < len(groups))


def _grouped(function: str, stored: Iterable[tuple[int, int, ErrorRecord]]) -> list[_Group]:
    """Group errors. stored: the number of the message, the item and the error, in that order."""
    groups: dict[str, _Group] = {}
    for seq, _, error in stored:
        key, message = grouped_cause(function, error)
        if key not in groups:
            groups[key] = _Group(key, message, error, seq, seq)
        groups[key].add(error, seq)
    return list(groups.values())


def _activity(group: _Group, record: Record, ages: dict[int, float]) -> FailureActivity:
    first, last = (max(0.0, ages.get(seq, 0.0)) for seq in (group.first, group.last))
    error = group.record
    return FailureActivity(
        group.key,
        record.function,
        error.kind,
        error.type,
        group.message,
        group.count,
        first,
        last,
        [],
        group.hosts,
        group.indexes,
        record.id,
    )
