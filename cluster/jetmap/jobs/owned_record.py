"""The record of a job that this dispatcher owns: each write is on condition that it still does."""

from __future__ import annotations

from collections.abc import Callable

from . import transitions
from .catalogue import Catalogue
from .record import Record
from .room import until_room
from .store import Conflict, Store


class OvertakenError(Exception):
    """The end of a job was to be written, and what it was decided by has changed meanwhile."""


class OwnedRecord:
    """Keep and write one job's record; adopt what people want of the job meanwhile.

    Args:
        me: This dispatcher.
        on_steered: Called when the record may say something else of pauses and limits.

    Attributes:
        current: The record as it was last written, or as it is about to be.
    """

    def __init__(
        self,
        record: Record,
        me: str,
        store: Store,
        catalogue: Catalogue,
        *,
        on_steered: Callable[[], None],
    ) -> None:
        self.current = record
        self._me = me
        self._store = store
        self._catalogue = catalogue
        self._on_steered = on_steered
        self._seq = 0
        self._writing: Record | None = None  # Its notification may precede the reply.

    def on_record(self, record: Record) -> bool:
        """Compare the newest record with ours; return whether somebody else decides on the job now.

        Somebody may have cancelled it, or taken it over while this process was away.
        """
        if record in (self.current, self._writing):
            return False
        if record.is_over or (record.owner, record.epoch) != (self._me, self.current.epoch):
            return True
        self.current = transitions.as_steered(self.current, record)
        self._on_steered()
        return False

    async def write(self, record: Record, after: int | None = None) -> int:
        """Store the record, even if the reply to an own earlier write was lost.

        Raises Conflict if somebody else has decided on the job meanwhile, and OvertakenError if the
        record ends the job under another ``max_failed`` than people want by now.

        Args:
            after: Sequence number of the record that it follows; None: the one written last.

        Returns:
            Its sequence number.
        """
        ttl = record.ttl if record.is_over else None
        after = self._seq if after is None else after
        self._writing = record
        while True:
            try:
                self._seq = await until_room(
                    lambda record=record, after=after: self._store.write(record, after, ttl=ttl)  # type: ignore[misc]
                )
                break
            except Conflict:
                there, after = await self._store.read(record.id)
                ours = (self._me, record.epoch)
                if there is None or there.is_over or (there.owner, there.epoch) != ours:
                    raise
                if record.is_over and record.max_failed != there.max_failed:
                    self._seq, self._writing = after, None
                    self.current = transitions.as_steered(self.current, there)
                    self._on_steered()
                    raise OvertakenError from None
                record = self._writing = transitions.as_steered(record, there)
        self.current = record
        self._catalogue.on_record(record, self._seq)
        self._on_steered()
        return self._seq
