"""Blobs: large buffers in memory that processes of one machine share, by passing descriptors.

A process may have a limited number of descriptors, often 1,024. So when many calls wait, the blobs
of the later ones become files only when a worker asks for them; and of results, only very large
ones keep a descriptor, as Python's mappings did before 3.13.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import sys
import tempfile
import threading
from dataclasses import dataclass

# Blobs that no call uses now, kept for a value that is sent again: at most this number, and bytes.
KEPT_BLOBS = 8
KEPT_BYTES = 512 << 20
# Files that an executor has open for its blobs, at most; and the part of this process's limit.
MOST_FILES = 256
FILES_SHARE = 4
# Bytes of a result that stays in its file, at least; a smaller one is copied.
MAPPED_BYTES = 0 if sys.version_info >= (3, 13) else 16 << 20


@dataclass(slots=True)
class Blob:
    """A buffer's content.

    Attributes:
        content: Descriptor of a file without a name, or the bytes.
        users: Calls that have not ended.
        source: Address and size of the buffer it was copied from.
        mapped: The file in memory, since it was compared with a buffer. Mapping it anew costs as
            much as the comparison.
    """

    content: int | bytes
    size: int
    users: int
    source: tuple[int, int]
    mapped: mmap.mmap | None = None


def write(buffer: memoryview) -> int:
    """Copy a buffer to a file in memory; return its descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("jetmap-blob")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        view = buffer.cast("B")
        while view:
            view = view[os.write(fd, view[: 1 << 30]) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int, size: int) -> memoryview:
    """Map a blob; writing to the view changes a private copy. The descriptor is closed."""
    try:
        if not size:
            return memoryview(bytearray())
        return memoryview(_map(fd, size))
    finally:
        os.close(fd)


def _map(fd: int, size: int) -> mmap.mmap:
    prot = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=prot, trackfd=False)
    return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=prot)


def copied(fd: int, size: int) -> memoryview:
    """Read a blob into memory of this process. The descriptor is closed."""
    try:
        view, at = memoryview(bytearray(size)), 0
        while at < size:
            count = os.preadv(fd, [view[at:]], at)
            if not count:
                raise OSError("a blob is shorter than it was said to be")
            at += count
        return view
    finally:
        os.close(fd)


class Blobs:
    """The blobs of one executor. Any thread may use them.

    A buffer that is sent again, unchanged, is not copied again. It is found by its address, and
    compared: an array that was changed in place is another value.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[int, Blob] = {}  # Of calls.
        self._unused: dict[int, Blob] = {}  # Those among them; the latest at the end.
        self._unused_bytes = 0
        self._results: dict[int, memoryview] = {}
        self._sources: dict[tuple[int, int], int] = {}
        self._last = 0
        self._files = 0
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The limit is negative where there is none.
        self._most_files = min(MOST_FILES, limit // FILES_SHARE) if limit > 0 else MOST_FILES

    def put(self, buffer: memoryview) -> int:
        """Keep a buffer until as many calls of ``release``; return its number."""
        source = (_address(buffer), buffer.nbytes)
        with self._lock:
            number = self._sources.get(source)
            blob = self._blobs.get(number) if number is not None else None
            if blob is not None and number is not None:
                blob.users += 1
                if self._unused.pop(number, None) is not None:
                    self._unused_bytes -= blob.size
            is_file = self._files < self._most_files
        if blob is not None and number is not None:
            if _equal(source, blob):
                return number
            self.release([number])
        content = write(buffer) if is_file else bytes(buffer)
        return self._add(Blob(content, buffer.nbytes, 1, source))

    def take_in(self, fd: int, size: int) -> int:
        """Keep a blob that another process has made, for ``take``."""
        view = read(fd, size) if size >= MAPPED_BYTES else copied(fd, size)
        with self._lock:
            self._last += 1
            self._results[self._last] = view
            return self._last

    def take(self, number: int) -> memoryview:
        """Return a blob that was taken in, and forget it."""
        with self._lock:
            return self._results.pop(number)

    def drop(self, numbers: list[int]) -> None:
        """Forget blobs that were taken in, and that nobody will take."""
        with self._lock:
            for number in numbers:
                self._results.pop(number, None)

    def share(self, number: int) -> tuple[int, int]:
        """Return a new descriptor and the size. Raises KeyError."""
        with self._lock:
            blob = self._blobs[number]
            if isinstance(blob.content, int):
                return os.dup(blob.content), blob.size
        return write(memoryview(blob.content)), blob.size

    def release(self, numbers: list[int]) -> None:
        """End a call's use of its blobs."""
        with self._lock:
            for number in numbers:
                blob = self._blobs.get(number)
                if blob is None:  # All are closed.
                    continue
                blob.users -= 1
                if not blob.users:
                    self._unused[number] = blob
                    self._unused_bytes += blob.size
            while len(self._unused) > KEPT_BLOBS or self._unused_bytes > KEPT_BYTES:
                blob = self._unused.pop(number := next(iter(self._unused)))
                self._unused_bytes -= blob.size
                del self._blobs[number]
                if self._sources.get(blob.source) == number:
                    del self._sources[blob.source]
                self._close(blob)

    def close(self) -> None:
        """Drop the blobs of calls. Results can still be taken."""
        with self._lock:
            for blob in self._blobs.values():
                self._close(blob)
            self._blobs.clear()
            self._unused.clear()
            self._unused_bytes = 0
            self._sources.clear()

    def _add(self, blob: Blob) -> int:
        with self._lock:
            self._last += 1
            self._blobs[self._last] = blob
            self._files += isinstance(blob.content, int)
            if blob.source[0]:
                self._sources[blob.source] = self._last
            return self._last

    def _close(self, blob: Blob) -> None:
        if isinstance(blob.content, int):
            os.close(blob.content)
            blob.mapped = None  # A thread that still compares it has it, too.
            self._files -= 1


def _address(buffer: memoryview) -> int:
    """Return the address of a buffer; 0 if it is not known."""
    with contextlib.suppress(TypeError, ValueError):
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    try:
        import numpy
    except ImportError:  # Only NumPy and its kin make large read-only buffers.
        return 0
    return int(numpy.frombuffer(buffer, numpy.uint8).ctypes.data)


def _equal(source: tuple[int, int], blob: Blob) -> bool:
    """Compare a buffer with the blob that was copied from the same address before."""
    address, size = source
    if not address or size != blob.size:
        return False
    memcmp = ctypes.CDLL(None).memcmp
    memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    if isinstance(blob.content, bytes):
        return bool(memcmp(address, blob.content, size) == 0)
    mapped = blob.mapped = blob.mapped or _map(blob.content, size)
    view = ctypes.c_char.from_buffer(mapped)  # It is not unmapped while this exists.
    return bool(memcmp(address, ctypes.addressof(view), size) == 0)
