"""Lists as answers: values in input order, in a file if they are too many for memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.arrays import array_header, body_view, concatenate, size_around
from jetmap.wire.messages import ErrorRecord, Format

from .admission import Reservation
from .asgi import Header, Send
from .media import CONTENT_TYPES
from .outcomes import Outcomes, Translated, translate
from .problems import error_record, item_problem
from .spool import BLOCK, SpooledParts

_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode
_encode = {"json": _json, "msgpack": _msgpack}
# What an object of values and errors has before, between and behind them.
_AROUND: dict[str, tuple[bytes, bytes, bytes]] = {
    "json": (b'{"values":', b',"errors":', b"}"),
    "msgpack": (b"\x82" + _msgpack("values"), _msgpack("errors"), b""),
}


class Map(Protocol):
    """An open map. ``stop`` takes no more items, once those before one of them are taken;
    ``aclose`` withdraws the rest of it.
    """

    id: str

    @property
    def total(self) -> int | None: ...
    def __aiter__(self) -> AsyncIterator[Outcomes]: ...
    def stop(self, before: int = 0) -> None: ...
    async def aclose(self) -> None: ...


class Gathered:
    """The values of a whole map, in whatever order they come, as one list in input order.

    They are in memory up to a limit, and beyond it as far as the request's large body has left
    memory; then in a file. The request's reservation covers all of it.
    """

    def __init__(self, format: Format, limits: LimitSettings, reservation: Reservation) -> None:
        self.count = 0
        self._format = format
        self._limits = limits
        self._reservation = reservation
        # Of each part: start, count, values (None in the file), offset in the file, size.
        self._parts: list[tuple[int, int, bytes | None, int, int]] = []
        self._in_memory = 0
        self._inner = 0  # Bytes of all parts without their heads and ends.
        self._spooled: SpooledParts | None = None

    @property
    def is_spooled(self) -> bool:
        """True if a part is in a file."""
        return self._spooled is not None

    @property
    def size(self) -> int:
        """The bytes of the encoded list."""
        return size_around(self.count, len(self._parts), self._format) + self._inner

    def add(self, outcomes: Outcomes) -> None:
        """Add outcomes. Raises Problem as ``SpooledPipe.put`` does."""
        count = outcomes.count
        if not count:
            return
        values = outcomes.values
        size = len(values)
        self.count += count
        self._inner += len(body_view(values, self._format))
        if self._in_memory + size <= self._limits.max_buffer_bytes and self._reservation.take(size):
            self._in_memory += size
            self._parts.append((outcomes.start, count, values, 0, size))
            return
        if self._reservation.take_left(size):
            self._parts.append((outcomes.start, count, values, 0, size))
            return
        if self._spooled is None:
            self._spooled = SpooledParts(self._limits, self._reservation)
        self._parts.append((outcomes.start, count, None, self._spooled.add(values), size))

    def count_before(self, index: int) -> int:
        """Count the items before this one that are there."""
        return sum(
            min(start + count, index) - start for start, count, *_ in self._parts if start < index
        )

    def whole(self) -> bytes | None:
        """Return the encoded list; None if it is large or in the file: then use ``pieces``."""
        parts = self._parts
        if self._spooled is not None or self._inner > BLOCK:
            return None
        if len(parts) == 1:
            values = parts[0][2]
            assert values is not None
            return values
        parts.sort()
        return concatenate(
            [part[2] for part in parts if part[2] is not None], self.count, self._format
        )

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Return the encoded list piece by piece, and drop each piece."""
        json = self._format == "json"
        yield b"[" if json else array_header(self.count)
        self._parts.sort(reverse=True)
        first = True
        while self._parts:
            _, _, values, offset, size = self._parts.pop()
            if values is None:
                assert self._spooled is not None
                values = self._spooled.read(offset, size)
            if json and not first:
                yield b","
            first = False
            yield body_view(values, self._format)
        if json:
            yield b"]"

    def close(self) -> None:
        self._parts.clear()
        if self._spooled is not None:
            self._spooled.close()


class ListAnswer:
    """The values of a whole map; with ``collect``, an object of values and errors.

    Without ``collect``, the first failing item in input order is the answer: the one that a loop
    over the items would have met.
    """

    def __init__(
        self,
        format: Format,
        limits: LimitSettings,
        reservation: Reservation,
        *,
        collect: bool,
        debug: bool,
    ) -> None:
        self.headers: list[Header] = []  # further headers
        self._format = format
        self._debug = debug
        self._values = Gathered(format, limits, reservation)
        self._errors = Gathered(format, limits, reservation) if collect else None
        self._first: ErrorRecord | None = None
        self._missing = 0  # items before the first that failed

    async def gather(self, run: Map, source: Format) -> None:
        """Take all outcomes of the map.

        Raises Problem for the first failing item, without waiting for anything after it.
        """
        try:
            async for outcomes in run:
                if source != self._format:
                    outcomes = translate(outcomes, source, self._format)
                self._values.add(outcomes)
                if outcomes.errors and self._errors is not None:
                    self._keep(outcomes, self._errors)
                elif outcomes.errors or self._first is not None:
                    first = self._look_at(outcomes)
                    run.stop(before=first.index)
                    if self._missing == 0:
                        raise item_problem(first, self._debug)
        finally:
            await run.aclose()

    async def send(self, send: Send) -> None:
        """Write the answer."""
        headers = [(b"content-type", CONTENT_TYPES[self._format]), *self.headers]
        start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": headers}
        body = self._values.whole() if self._errors is None else None
        if body is not None:
            headers.append((b"content-length", b"%d" % len(body)))
            await send(start)
            await send({"type": "http.response.body", "body": body})
            return
        left = self._size()
        headers.append((b"content-length", b"%d" % left))
        await send(start)
        for block in in_blocks(self._pieces()):  # The server need not hold all of it.
            left -= len(block)
            await send({"type": "http.response.body", "body": block, "more_body": left > 0})

    def close(self) -> None:
        """Drop the outcomes."""
        self._values.close()
        if self._errors is not None:
            self._errors.close()

    def _keep(self, outcomes: Outcomes, errors: Gathered) -> None:
        records = [error_record(record, self._debug) for record in outcomes.errors]
        records.sort(key=lambda record: record["index"])
        encoded = _encode[self._format](records)
        errors.add(Translated(outcomes.start, len(records), encoded, []))

    def _look_at(self, outcomes: Outcomes) -> ErrorRecord:
        """Return the first failure so far, and count the items before it that lack an outcome."""
        if outcomes.errors:
            first = first_of(outcomes.errors)
            if self._first is None or first.index < self._first.index:
                self._first = first
                self._missing = first.index - self._values.count_before(first.index)
        elif self._first is not None and outcomes.start < self._first.index:
            end = min(outcomes.start + outcomes.count, self._first.index)
            self._missing -= end - outcomes.start
        assert self._first is not None
        return self._first

    def _size(self) -> int:
        """Return the bytes of the answer."""
        size = self._values.size
        if self._errors is not None:
            size += sum(map(len, _AROUND[self._format])) + self._errors.size
        return size

    def _pieces(self) -> Iterator[bytes | memoryview]:
        if self._errors is None:
            yield from self._values.pieces()
            return
        start, middle, end = _AROUND[self._format]
        yield start
        yield from self._values.pieces()
        yield middle
        yield from self._errors.pieces()
        yield end


def in_blocks(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join small pieces, and cut large ones, to blocks of BLOCK bytes or fewer."""
    some: list[bytes | memoryview] = []
    room = BLOCK
    for piece in pieces:
        if some and len(piece) > room:
            yield b"".join(some)
            some.clear()
            room = BLOCK
        at = 0
        while len(piece) - at > BLOCK:
            yield bytes(piece[at : at + BLOCK])
            at += BLOCK
        some.append(piece[at:])
        room -= len(piece) - at
    yield b"".join(some)


def first_of(errors: Sequence[ErrorRecord]) -> ErrorRecord:
    """Return the error of the first item in input order."""
    return min(errors, key=lambda record: record.index)
