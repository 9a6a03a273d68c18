"""Read a job's input from its stream, as it is needed."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from jetmap.dispatch.flight import Piece
from jetmap.dispatch.intervals import IntervalSet
from jetmap.dispatch.sources import ELEMENT_BYTES, Element
from jetmap.errors import BrokerUnreachable, JobEnded
from jetmap.wire import arrays, subjects

from .record import InputPart, Record
from .store import Store

logger = logging.getLogger(__name__)

# Bytes of memory for items read ahead; each element is an object, however short.
AHEAD_BYTES = 4 << 20
# Seconds between attempts to read.
AGAIN_SECONDS = 0.2
# Seconds after which a part of the input that cannot be read counts as lost.
MISSING_SECONDS = 30.0

_part = msgspec.msgpack.Decoder(InputPart).decode


class StoredInput:
    """A source (see ``dispatch.sources``) of the items without an outcome.

    seen: ranges of items with an outcome. A part that was stored twice counts once.
    """

    fails_at_once = True

    def __init__(self, store: Store, record: Record, seen: Iterable[tuple[int, int]] = ()) -> None:
        self.wake: Callable[[], None] | None = None
        self.error: BaseException | None = None
        self._store = store
        self._record = record
        self._count = record.total or 0
        self._seen = IntervalSet()
        for start, end in seen:
            self._seen.add(start, end)
        self._parts: deque[tuple[int, list[msgspec.Raw], int]] = deque()  # start, elements, bytes
        self._early: dict[int, InputPart] = {}
        self._bytes = 0
        self._taken = 0  # The index after the last item taken or skipped.
        self._read = 0  # The index after the last item read.
        self._room = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read_all())

    @property
    def total(self) -> int | None:
        """The number of items, but None until all are read, so that a map does not end early."""
        return self._count if self._read >= self._count else None

    @property
    def remaining(self) -> int:
        return self._count - self._taken

    @property
    def has_items(self) -> bool:
        return bool(self._parts)

    def take(self, count: int, max_bytes: int) -> Piece | None:
        if not self._parts:
            return None
        start, elements, size = self._parts.popleft()
        some: list[Element] = list(elements[:count])
        items = arrays.join(some, self._record.format)
        while len(items) > max_bytes and len(some) > 1:
            some = some[: max(1, min(len(some) - 1, int(len(some) * max_bytes / len(items))))]
            items = arrays.join(some, self._record.format)
        rest = elements[len(some) :]
        if rest:
            used = size * len(some) // len(elements)
            self._parts.appendleft((start + len(some), rest, size - used))
            self._bytes -= used
        else:
            self._bytes -= size
        if self._bytes < AHEAD_BYTES // 2:
            self._room.set()
        self._taken = start + len(some)
        return Piece(start, len(some), items)

    async def aclose(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read_all(self) -> None:
        try:
            await self._read_parts()
        except Exception as error:
            # Any error: without a reader, the job would wait for its items forever.
            self.error = error
        if self.wake is not None:
            self.wake()

    async def _read_parts(self) -> None:
        subject = subjects.job_input(self._store.pool, self._record.id)
        after, missing = 0, 0.0
        while self._read < self._count:
            try:
                found = await self._store.fetch("INPUT", subject, after)
            except BrokerUnreachable as error:
                logger.debug("job %s: %s", self._record.id, error)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if not found:
                # A replica may lag behind what was stored.
                missing += AGAIN_SECONDS
                if missing > MISSING_SECONDS:
                    raise JobEnded(
                        f"items {self._read} and later of the input are not in the store any more",
                        state="failed",
                    )
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            missing = 0.0
            for stored in found:
                after = stored.seq
                self._add(_part(stored.data))
                if self._bytes > AHEAD_BYTES:
                    self._room.clear()
                    await self._room.wait()

    def _add(self, part: InputPart) -> None:
        # Several parts are stored at once, so a part sent again may follow later ones, and appear
        # twice if only the reply to it was lost.
        if part.start >= self._read:
            self._early[part.start] = part
        while (early := self._early.pop(self._read, None)) is not None:
            self._take_in(early)

    def _take_in(self, part: InputPart) -> None:
        self._read += part.count
        missing = self._seen.missing(part.start, self._read)
        if missing:
            elements = arrays.split(part.items, self._record.format)
            for a, b in missing:
                some = elements[a - part.start : b - part.start]
                size = sum(len(memoryview(e)) + ELEMENT_BYTES for e in some)
                self._parts.append((a, some, size))
                self._bytes += size
        if self.wake is not None:
            self.wake()
