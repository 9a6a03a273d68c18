"""Read a job's input from its stream, as it is needed."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import msgspec

from jetmap.background import Background
from jetmap.dispatch.flight import Piece
from jetmap.dispatch.intervals import IntervalSet
from jetmap.dispatch.sources import ELEMENT_BYTES, Element
from jetmap.errors import BrokerUnreachable, JobEnded
from jetmap.wire import arrays, subjects

from .record import InputFragment, InputPart, Record
from .store import Store

logger = logging.getLogger(__name__)

# Bytes of memory for items read ahead; each element is an object, however short.
AHEAD_BYTES = 4 << 20
# Seconds between attempts to read.
AGAIN_SECONDS = 0.2
# Seconds after which a part of the input that cannot be read counts as lost.
MISSING_SECONDS = 30.0

_NONE: Mapping[int, tuple[int, float]] = {}

_part = msgspec.msgpack.Decoder(InputFragment).decode


class StoredInput:
    """A source (see ``dispatch.sources``) of the items without an outcome.

    seen: ranges of items with an outcome. tries: of each item that an earlier owner was to send
    once more, how often it was tried, and the seconds that it waits from when it is read. A part
    that was stored twice counts once.
    """

    fails_at_once = True

    def __init__(
        self,
        store: Store,
        record: Record,
        seen: Iterable[tuple[int, int]] = (),
        tries: Mapping[int, tuple[int, float]] = _NONE,
    ) -> None:
        self.wake: Callable[[], None] | None = None
        self.error: BaseException | None = None
        self._store = store
        self._record = record
        self._count = record.total or 0
        self._seen = IntervalSet()
        for start, end in seen:
            self._seen.add(start, end)
        # Of each part: start, elements, bytes, earlier tries.
        self._parts: deque[tuple[int, list[msgspec.Raw], int, int]] = deque()
        self._tries = tries
        self._waiting: dict[int, asyncio.TimerHandle] = {}  # Items that wait for their next try.
        self._early: dict[int, InputPart] = {}
        self._fragments: dict[int, dict[int, bytes]] = {}  # Of large items: by start, then offset.
        self._bytes = 0
        self._taken = 0  # The index after the last item taken or skipped.
        self._read = 0  # The index after the last item read.
        self._room = asyncio.Event()
        self._background = Background(f"input of job {record.id}")
        self._background.spawn(self._read_all(), "read")

    @property
    def total(self) -> int | None:
        """The number of items, but None until all can be taken: a map must not end early.

        Items that waited are taken out of order. Until the last one is, what was taken last does
        not show whether all were.
        """
        if self._read < self._count or self._waiting or (self._tries and self._parts):
            return None
        return self._count

    @property
    def remaining(self) -> int:
        return max(len(self._parts) + len(self._waiting), self._count - self._taken)

    @property
    def has_items(self) -> bool:
        return bool(self._parts)

    def take(self, count: int, max_bytes: int) -> Piece | None:
        if not self._parts:
            return None
        start, elements, size, tries = self._parts.popleft()
        some: list[Element] = list(elements[:count])
        items = arrays.join(some, self._record.format)
        while len(items) > max_bytes and len(some) > 1:
            some = some[: max(1, min(len(some) - 1, int(len(some) * max_bytes / len(items))))]
            items = arrays.join(some, self._record.format)
        rest = elements[len(some) :]
        if rest:
            used = size * len(some) // len(elements)
            self._parts.appendleft((start + len(some), rest, size - used, tries))
            self._bytes -= used
        else:
            self._bytes -= size
        if self._bytes < AHEAD_BYTES // 2:
            self._room.set()
        self._taken = start + len(some)
        return Piece(start, len(some), items, tries=tries)

    async def aclose(self) -> None:
        for timer in self._waiting.values():
            timer.cancel()
        await self._background.close()

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

    def _add(self, part: InputFragment) -> None:
        if part.size:
            if part.start >= self._read:
                self._add_fragment(part)
            return
        self._add_part(part)

    def _add_fragment(self, part: InputFragment) -> None:
        """Keep a part of a large item; take that in if this is its last."""
        fragments = self._fragments.setdefault(part.start, {})
        fragments[part.offset] = part.items
        if sum(map(len, fragments.values())) == part.size:
            items = b"".join(fragments[at] for at in sorted(fragments))
            del self._fragments[part.start]
            self._add_part(InputPart(part.start, part.count, items))

    def _add_part(self, part: InputPart) -> None:
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
                if self._tries:
                    self._put_apart(a, some)
                else:
                    self._put(a, some, 0)
        if self.wake is not None:
            self.wake()

    def _put(self, start: int, elements: list[msgspec.Raw], tries: int) -> None:
        size = sum(len(memoryview(e)) + ELEMENT_BYTES for e in elements)
        self._parts.append((start, elements, size, tries))
        self._bytes += size

    def _put_apart(self, start: int, elements: list[msgspec.Raw]) -> None:
        """Keep the items that were tried before until their time; give the others now."""
        loop, first = asyncio.get_running_loop(), start
        for index, element in enumerate(elements, start):
            if index not in self._tries:
                continue
            if first < index:
                self._put(first, elements[first - start : index - start], 0)
            first = index + 1
            tries, wait = self._tries[index]
            self._waiting[index] = loop.call_later(wait, self._resume, index, element, tries)
        if first < start + len(elements):
            self._put(first, elements[first - start :], 0)

    def _resume(self, index: int, element: msgspec.Raw, tries: int) -> None:
        del self._waiting[index]
        self._put(index, [element], tries)
        if self.wake is not None:
            self.wake()
