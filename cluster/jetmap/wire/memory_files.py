"""Files without a name, in which a large value is kept once for all processes of a host.

They are in memory, or on disk where memory is short. Other processes of the same user open them
through ``/proc``, by the process and the descriptor that have them open; where there is no such
directory, the file has a name for as long as it is kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import stat
import sys
import tempfile
import threading
from pathlib import Path

import msgspec

from jetmap.machine import boot_id, free_memory, temporary_directory

# Of <linux/fcntl.h>: F_ADD_SEALS; no further seals, no other size, no writing.
_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8
NAME = "jetmap-value"  # The name of all files, as the system shows it.
_AT_ONCE = 64 << 20  # Bytes written by one call.
_HAS_PROC = sys.platform == "linux" and os.path.exists("/proc/self/fd")  # noqa: PTH110


class FilePlace(msgspec.Struct, array_like=True):
    """The place of a file for other processes of its host.

    machine: the boot id of the host. pid, fd: the process that has it open, and as what. device,
    inode: of the file, in case another process has that pid by now. path: its name, where it has
    one.
    """

    machine: str
    pid: int
    fd: int
    device: int
    inode: int
    path: str = ""


class MemoryFile:
    """Bytes that are written once, and then only read; a process closes it when it is done."""

    unwritten = 0  # Bytes of all files that are made, for which the system has no memory yet.
    _counting = threading.Lock()  # Files are written in threads.

    def __init__(self, fd: int, size: int, path: str = "") -> None:
        self.size = size
        self._promised = 0  # Its share of ``unwritten``.
        self._fd = fd
        self._path = path
        self._maker = os.getpid()  # A forked child leaves the name alone.
        self._view: memoryview | None = None

    @classmethod
    def create(cls, size: int) -> MemoryFile:
        """Make a file of ``size`` bytes. Raises OSError if the host has no room for it."""
        if hasattr(os, "memfd_create") and _HAS_PROC and size <= _memory_room():
            fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            made = cls._sized(fd, size)
            made._promise(size)
            return made
        if size > _disk_room():
            raise OSError(errno.ENOSPC, "neither memory nor the directory for temporary files")
        fd, path = tempfile.mkstemp(prefix=f"{NAME}-", dir=temporary_directory())
        if _HAS_PROC:
            os.unlink(path)  # noqa: PTH108
            path = ""
        made = cls._sized(fd, size, path)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError:
                made.close()
                raise
        return made

    @classmethod
    def _sized(cls, fd: int, size: int, path: str = "") -> MemoryFile:
        made = cls(fd, size, path)
        try:
            os.ftruncate(fd, size)
        except OSError:
            made.close()
            raise
        return made

    @classmethod
    def open(cls, place: FilePlace, size: int) -> MemoryFile:
        """Open a file that another process of this user on this host has written.

        Raises OSError or ValueError if it cannot be had.
        """
        path = f"/proc/{place.pid}/fd/{place.fd}" if _HAS_PROC else place.path
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino, found.st_size) != (place.device, place.inode, size):
                raise ValueError("another process has its number by now")
            if found.st_uid != os.geteuid():
                raise PermissionError("it belongs to another user")
            # Places come over the network: no other file of this user may be read.
            name = (Path(f"/proc/self/fd/{fd}").readlink() if _HAS_PROC else Path(path)).name
            is_ours = name.removeprefix("memfd:").startswith(NAME)
            if not is_ours or not stat.S_ISREG(found.st_mode):
                raise PermissionError("it is another kind of file")
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, size)

    @property
    def place(self) -> FilePlace:
        """The place where other processes of this host open the file."""
        found = os.fstat(self._fd)
        return FilePlace(boot_id(), os.getpid(), self._fd, found.st_dev, found.st_ino, self._path)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes. Raises OSError if there is no room for them."""
        view = memoryview(data).cast("B")
        while view:
            count = os.pwrite(self._fd, view[:_AT_ONCE], offset)
            offset += count
            view = view[count:]
            self._promise(max(0, self._promised - count))

    def seal(self) -> None:
        """Allow no change any more, if the system can do that."""
        self._promise(0)
        with contextlib.suppress(OSError):  # Files on disk cannot be sealed.
            fcntl.fcntl(self._fd, _ADD_SEALS, _SEALS)

    def view(self) -> memoryview:
        """Return the bytes, mapped; they stay for as long as a part of the view is used."""
        if self._view is None:
            mapped = mmap.mmap(self._fd, self.size, prot=mmap.PROT_READ) if self.size else b""
            self._view = memoryview(mapped)
        return self._view

    def __del__(self) -> None:
        self.close()

    def _promise(self, size: int) -> None:
        with MemoryFile._counting:
            MemoryFile.unwritten += size - self._promised
            self._promised = size

    def close(self) -> None:
        """Let go of the file. The memory is free when no process has it open, or views of it."""
        self._view = None
        self._promise(0)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._path and self._maker == os.getpid():
                Path(self._path).unlink(missing_ok=True)


def room() -> int:
    """Return the bytes of the largest file that could be made here."""
    return max(_memory_room(), _disk_room())


def coarse(size: int) -> int:
    """Round a size down to four bits and zeros, so that small changes do not show."""
    shift = max(0, size.bit_length() - 4)
    return size >> shift << shift


def _memory_room() -> int:
    """Return the bytes of memory that a file may take; a tenth is left for others."""
    return free_memory() * 9 // 10 - MemoryFile.unwritten


def _disk_room() -> int:
    try:
        return shutil.disk_usage(temporary_directory()).free * 9 // 10
    except OSError:
        return 0
