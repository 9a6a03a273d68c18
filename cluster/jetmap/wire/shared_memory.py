"""Memory that processes of one host share: large items on their way, and large values back.

A segment is a file without a name, mapped by the process that writes it and by those that read it.
An ``Arena`` says which of its regions are in use. Each region begins with its generation, a number
that is never used twice: a reader compares it after it has copied the bytes, so it never gets those
of another chunk. The generation is zeroed before the region is used again; in a worker's segment
the agent does that, when a report has been confirmed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import socket
import struct
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from .messages import Region

if TYPE_CHECKING:
    from .scattered import Scattered

STEP = 8 << 20  # Bytes that are reserved at once.
HEADER = 8  # Bytes of a region's generation.
ALIGN = 64  # Regions begin at multiples of this.
DATA = mmap.PAGESIZE  # Bytes before the regions: a page with one word, the bytes reserved.
# Of <linux/fcntl.h>: F_ADD_SEALS, F_GET_SEALS; no further seals, no other size.
_ADD_SEALS, _GET_SEALS, _SEALS = 1033, 1034, 0x1 | 0x2 | 0x4
_CREDENTIALS = struct.Struct("3i")  # Process, user and group of a peer.


def is_available() -> bool:
    """Return whether this system has what sharing needs."""
    return sys.platform == "linux" and hasattr(os, "memfd_create")


class Arena:
    """Give out regions of some memory, the lowest first, and take them back. No I/O.

    Args:
        start: Where the first region may begin.
        end: Where the last one must end.
        generation: That of the first region; each one after it has the next number.
    """

    def __init__(self, start: int, end: int, generation: int = 1) -> None:
        self.used = 0
        self.size = end - start
        self._gaps = [(start, end)]
        self._out: dict[int, Region] = {}
        self._generation = generation

    def __iter__(self) -> Iterator[Region]:
        """Iterate over the regions in use."""
        return iter(list(self._out.values()))

    def __len__(self) -> int:
        return len(self._out)

    @property
    def is_crowded(self) -> bool:
        """Return whether three quarters are in use: the next large region may not fit."""
        return 4 * self.used > 3 * self.size

    def allocate(self, size: int) -> Region | None:
        """Give out a region; None if none is free, or a quarter of the memory is too small."""
        room = _room(size)
        if 4 * room > self.size:
            return None
        for at, (start, end) in enumerate(self._gaps):
            if end - start >= room:
                if end - start == room:
                    del self._gaps[at]
                else:
                    self._gaps[at] = start + room, end
                region = Region(start, size, self._generation)
                self._generation += 1
                self._out[start] = region
                self.used += room
                return region
        return None

    def free(self, region: Region) -> None:
        """Take a region back. Raises KeyError if it is not out."""
        if self._out.get(region.offset) is not region:
            raise KeyError(region)
        del self._out[region.offset]
        start, end = region.offset, region.offset + _room(region.size)
        self.used -= end - start
        at = bisect_left(self._gaps, (start, end))
        if at < len(self._gaps) and self._gaps[at][0] == end:
            end = self._gaps.pop(at)[1]
        if at and self._gaps[at - 1][1] == start:
            at -= 1
            start = self._gaps.pop(at)[0]
        self._gaps.insert(at, (start, end))


def _room(size: int) -> int:
    """Return the bytes that a region takes for ``size`` bytes."""
    return -(-(HEADER + size) // ALIGN) * ALIGN


class Segment:
    """A segment as a process maps it that writes its generations.

    The kernel gives it memory when that is reserved, so a full machine raises an error, and no
    signal.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = _mapped(fd, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, size: int) -> Segment:
        """Make a segment whose size cannot change. Raises OSError."""
        fd = os.memfd_create("jetmap-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
            fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @property
    def size(self) -> int:
        return len(self._map)

    def reopened(self) -> int:
        """Return a descriptor of it that can only be read from. Raises OSError."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def write(self, region: Region, data: bytes | Scattered) -> None:
        """Write a region. Raises OSError if there is no memory for it."""
        start = region.offset + HEADER
        end = start + region.size
        if end > (reserved := self._words[0]):
            wanted = min(self.size, max(end, reserved + STEP))
            os.posix_fallocate(self.fd, reserved, wanted - reserved)
            self._words[0] = wanted
        if type(data) is bytes:
            self._map[start:end] = data
        else:
            for part in cast("Scattered", data):
                self._map[start : start + len(part)] = part
                start += len(part)
        self._words[region.offset // 8] = region.generation

    def generation(self, offset: int) -> int:
        return int(self._words[offset // 8])

    def erase(self, offset: int) -> None:
        """Zero the generation of a region: it may be used again."""
        self._words[offset // 8] = 0

    def give_back(self) -> None:
        """Return the memory of all regions to the system. None of them may be in use."""
        if self._words[0]:
            self._words[0] = 0
            self._map.madvise(mmap.MADV_REMOVE, DATA, self.size - DATA)

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self.fd)


class Writer:
    """A segment and its arena, in the process that writes the regions."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.arena = Arena(DATA, segment.size, 1 + secrets.randbits(62))
        self._was_used = False  # Since the last ``rest``.

    def put(self, data: bytes | Scattered) -> Region | None:
        """Write some bytes; return their region, or None if they do not fit now."""
        region = self.arena.allocate(len(data))
        if region is None:
            return None
        try:
            self.segment.write(region, data)
        except OSError:  # There is no memory.
            self.arena.free(region)
            return None
        self._was_used = True
        return region

    def free(self, region: Region) -> None:
        self.segment.erase(region.offset)
        self.arena.free(region)

    def collect(self) -> None:
        """Take back the regions whose generation another process has zeroed."""
        for region in self.arena:
            if self.segment.generation(region.offset) != region.generation:
                self.arena.free(region)

    def rest(self) -> None:
        """Give memory back that nothing has used since the last call."""
        if not self._was_used and not len(self.arena):
            self.segment.give_back()
        self._was_used = False


class View:
    """A segment as a process maps it that only reads. The descriptor stays open.

    Raises OSError or ValueError if the file is not a segment.
    """

    def __init__(self, fd: int) -> None:
        if fcntl.fcntl(fd, _GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("the file could be truncated")
        self._map = _mapped(fd, mmap.PROT_READ)
        self._words = memoryview(self._map).cast("Q")

    def read(self, region: Region) -> bytes | None:
        """Copy the bytes of a region; None if it is used for something else by now."""
        data: bytes | None = self.read_by(bytes, region)
        return data

    def read_by(self, take: Callable[[memoryview], Any], region: Region) -> Any:
        """Return what ``take`` makes of a region; None if it is used for something else by now.

        The bytes may change while ``take`` runs, and afterwards, so its result must share none of
        them. What it raises is raised only if they were those of the region.
        """
        start = region.offset + HEADER
        end = start + region.size
        if region.offset % 8 or region.offset < DATA or end > len(self._map):
            return None
        word = region.offset // 8
        if self._words[word] != region.generation:
            return None
        try:
            with memoryview(self._map)[start:end] as data:
                taken = take(data)
        except Exception:
            if self._words[word] != region.generation:
                return None
            raise
        return taken if self._words[word] == region.generation else None

    def close(self) -> None:
        self._words.release()
        self._map.close()


def _mapped(fd: int, prot: int) -> mmap.mmap:
    """Map a whole file. Raises OSError or ValueError."""
    size = os.fstat(fd).st_size
    if size % mmap.PAGESIZE:
        raise ValueError(f"a segment cannot have {size} bytes")
    return mmap.mmap(fd, size, prot=prot)


# The socket over which the descriptors go.

Introduction = tuple[str, int]  # What follows (or an inbox, at first), and an arena's number.
ARENA, RETIRED, WELCOME = "arena", "retired", "welcome"
MESSAGE_BYTES = 4096


def unix_socket() -> socket.socket:
    """Return a socket that keeps messages apart and does not block."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    sock.set_inheritable(False)
    return sock


def is_own_user(sock: socket.socket) -> bool:
    """Return whether the process at the other end runs as this one's user."""
    size = _CREDENTIALS.size
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.geteuid())


def send(sock: socket.socket, message: bytes, fds: list[int]) -> None:
    """Send a message with descriptors. Raises OSError."""
    socket.send_fds(sock, [message], fds)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next message with its descriptors; an empty one: the other end is closed.

    Raises BlockingIOError if there is none.
    """
    message, fds, _, _ = socket.recv_fds(sock, MESSAGE_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
    return message, fds
