"""Keep bytes that are not taken yet: in memory up to a limit, then in temporary files."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from typing import IO

from jetmap.settings import LimitSettings

from .admission import Reservation
from .problems import Problem, over_limit

BLOCK = 256 * 1024
SEGMENT = 64 * 1024 * 1024


def _temporary_file() -> IO[bytes]:
    """Make a file without a buffer, which would hold what a full disk has refused."""
    return tempfile.TemporaryFile(prefix="jetmap-", buffering=0)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all data to a file that may take less at once. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


class _Segment:
    """A temporary file, written at its end and read from its start."""

    __slots__ = ("file", "read", "written")

    def __init__(self) -> None:
        self.file = _temporary_file()
        self.written = 0
        self.read = 0

    def write(self, data: bytes) -> None:
        self.file.seek(self.written)
        _write_all(self.file, data)
        self.written += len(data)

    def next(self) -> bytes:
        self.file.seek(self.read)
        data = self.file.read(min(BLOCK, self.written - self.read))
        self.read += len(data)
        return data


class SpooledPipe:
    """A queue of bytes between a writer and a reader of different speeds.

    waits: the writer waits at the limit of all files together, so ``put`` does not check it.
    """

    def __init__(
        self, limits: LimitSettings, reservation: Reservation, *, waits: bool = False
    ) -> None:
        self._limits = limits
        self._reservation = reservation
        self._spool = reservation.force_spool if waits else reservation.spool
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._segments: deque[_Segment] = deque()  # later than the bytes in memory
        self._in_files = 0
        self._last = b""  # The last bytes, behind those in files, whose disk may be full.
        self._closed = False
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    @property
    def size(self) -> int:
        """The bytes in the queue."""
        return self._in_memory + self._in_files + len(self._last)

    def put(self, data: bytes) -> None:
        """Add bytes without waiting.

        Raises Problem: 413 beyond max_spool_bytes, 503 beyond the limit of all requests, 507 if the
        disk is full.
        """
        size = len(data)
        if not self._segments and self._fits(size):
            self._memory.append(data)
            self._in_memory += size
        else:
            self._spill(data)
        self._filled.set()

    def end(self, data: bytes) -> None:
        """Add the last bytes, which always fit; the reader still gets everything. Only once."""
        if self._closed:
            return
        self._last = data
        self._reservation.force(len(data))
        self._closed = True
        self._filled.set()

    async def get(self) -> bytes | None:
        """Return the next bytes, about BLOCK of them; None at the end."""
        while self.size == 0:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        if self._memory:
            data = self._from_memory()
        else:
            data = self._from_file() if self._segments else self._take_last()
        self._emptied.set()
        return data

    async def room(self) -> None:
        """Wait until the queue fits into memory."""
        while self.size > self._limits.max_buffer_bytes:
            self._emptied.clear()
            await self._emptied.wait()

    def discard(self) -> None:
        """Remove the files, and empty the queue."""
        for segment in self._segments:
            segment.file.close()
        self._segments.clear()
        self._memory.clear()
        self._reservation.give(self._in_memory + len(self._last))
        self._reservation.force_spool(-self._in_files)
        self._in_memory = self._in_files = 0
        self._last = b""
        self._emptied.set()

    def _fits(self, size: int) -> bool:
        """Reserve memory for the bytes; False if they belong in a file."""
        if not self._memory:  # One piece is always in memory.
            self._reservation.force(size)
            return True
        return self._in_memory + size <= self._limits.max_buffer_bytes and self._reservation.take(
            size
        )

    def _spill(self, data: bytes) -> None:
        if self._in_files + len(data) > self._limits.max_spool_bytes:
            raise spool_full(self._limits)
        self._spool(len(data))
        try:
            is_new = not self._segments or self._segments[-1].written >= SEGMENT
            segment = _Segment() if is_new else self._segments[-1]
            segment.write(data)
        except OSError as exc:
            self._reservation.force_spool(-len(data))
            raise disk_full(exc) from exc
        if is_new:
            self._segments.append(segment)
        self._in_files += len(data)

    def _from_memory(self) -> bytes:
        data = self._memory.popleft()
        if self._memory and len(data) < BLOCK:
            some = [data]
            size = len(data)
            while self._memory and size < BLOCK:
                some.append(self._memory.popleft())
                size += len(some[-1])
            data = b"".join(some)
        self._in_memory -= len(data)
        self._reservation.give(len(data))
        return data

    def _take_last(self) -> bytes:
        data, self._last = self._last, b""
        self._reservation.give(len(data))
        return data

    def _from_file(self) -> bytes:
        segment = self._segments[0]
        data = segment.next()
        self._in_files -= len(data)
        self._reservation.force_spool(-len(data))
        if segment.read == segment.written:
            segment.file.close()
            self._segments.popleft()
        return data


def spool_full(limits: LimitSettings) -> Problem:
    return over_limit(
        f"results that were not read yet take more than {limits.max_spool_bytes} bytes "
        "(max_spool_bytes): read the answer while sending the body, or send fewer items",
        setting="max_spool_bytes",
        limit=limits.max_spool_bytes,
    )


def disk_full(exc: OSError) -> Problem:
    return Problem(
        507, "spool-failed", "Results cannot be spooled", f"the gateway's temporary file: {exc}"
    )


class SpooledParts:
    """Parts of a list in one temporary file, read in any order."""

    def __init__(self, limits: LimitSettings, reservation: Reservation) -> None:
        self._limits = limits
        self._reservation = reservation
        self._file: IO[bytes] | None = None
        self._written = 0

    def add(self, data: bytes) -> int:
        """Write a part; return its offset. Raises Problem as ``SpooledPipe.put`` does."""
        offset, size = self._written, len(data)
        if offset + size > self._limits.max_spool_bytes:
            raise spool_full(self._limits)
        self._reservation.spool(size)
        try:
            if self._file is None:
                self._file = _temporary_file()
            self._file.seek(offset)
            _write_all(self._file, data)
        except OSError as exc:
            raise disk_full(exc) from exc
        self._written += size
        return offset

    def read(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
