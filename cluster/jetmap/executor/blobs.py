"""Blobs: large buffers in memory that processes of one machine share, by passing descriptors."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import tempfile
import threading
from dataclasses import dataclass

# Blobs that no call uses now, kept for a value that is sent again: at most this number, and bytes.
KEPT_BLOBS = 8
KEPT_BYTES = 512 << 20


@dataclass(slots=True)
class Blob:
    """A file without a name.

    Attributes:
        users: Calls that have not ended.
        source: Address and size of the buffer it was copied from.
    """

    fd: int
    size: int
    users: int
    source: tuple[int, int]


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
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        return memoryview(mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=prot))
    finally:
        os.close(fd)


class Blobs:
    """The blobs of one executor. Any thread may use them.

    A buffer that is sent again, unchanged, is not copied again. It is found by its address, and
    compared: an array that was changed in place is another value.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[int, Blob] = {}  # Those used last are at the end.
        self._sources: dict[tuple[int, int], int] = {}
        self._last = 0

    def put(self, buffer: memoryview) -> int:
        """Keep a buffer until as many calls of ``release``; return its number."""
        source = (_address(buffer), buffer.nbytes)
        with self._lock:
            number = self._sources.get(source)
            blob = self._blobs.get(number) if number is not None else None
            if blob is not None and number is not None:
                blob.users += 1
                self._blobs[number] = self._blobs.pop(number)
        if blob is not None and number is not None:
            if _equal(source, blob):
                return number
            self.release([number])
        return self._add(Blob(write(buffer), buffer.nbytes, 1, source))

    def take_in(self, fd: int, size: int) -> int:
        """Keep a blob that another process has made, for ``take``."""
        return self._add(Blob(fd, size, 1, (0, 0)))

    def take(self, number: int) -> memoryview:
        """Map a blob that was taken in, and forget it."""
        with self._lock:
            blob = self._blobs.pop(number)
        return read(blob.fd, blob.size)

    def share(self, number: int) -> tuple[int, int]:
        """Return a new descriptor and the size. Raises KeyError."""
        with self._lock:
            blob = self._blobs[number]
            return os.dup(blob.fd), blob.size

    def release(self, numbers: list[int]) -> None:
        """End a call's use of its blobs."""
        with self._lock:
            for number in numbers:
                if (blob := self._blobs.get(number)) is not None:  # Else all are closed.
                    blob.users -= 1
            unused = [number for number, blob in self._blobs.items() if not blob.users]
            size = sum(self._blobs[number].size for number in unused)
            while len(unused) > KEPT_BLOBS or (unused and size > KEPT_BYTES):
                blob = self._blobs.pop(number := unused.pop(0))
                size -= blob.size
                if self._sources.get(blob.source) == number:
                    del self._sources[blob.source]
                os.close(blob.fd)

    def close(self) -> None:
        with self._lock:
            for blob in self._blobs.values():
                os.close(blob.fd)
            self._blobs.clear()
            self._sources.clear()

    def _add(self, blob: Blob) -> int:
        with self._lock:
            self._last += 1
            self._blobs[self._last] = blob
            if blob.source[0]:
                self._sources[blob.source] = self._last
            return self._last


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
    with mmap.mmap(
        blob.fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
    ) as m:
        copy = ctypes.addressof(ctypes.c_char.from_buffer(m))
        memcmp = ctypes.CDLL(None).memcmp
        memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        return bool(memcmp(address, copy, size) == 0)
