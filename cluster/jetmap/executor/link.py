"""The link between an executor and each of its workers: a Unix socket that passes descriptors.

A worker asks, and the executor answers: with its own stdout and stderr, so that what a call prints
appears where the caller's output does; with a call's blobs; with a number for a result's blob; with
the resource tracker of ``multiprocessing``; and with a socket for its reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
from multiprocessing import resource_tracker

from jetmap.embedded.locks import remove, runtime_directory, take_new

from . import blobs
from .blobs import Blobs
from .shortcut import ReportReader

_FRAME = struct.Struct(
    "<cQQ"
)  # Bytes of a frame: its kind, a blob's or a process's number, and a size.
HELLO, GET, PUT, TRACKER, REPORTS, UNKNOWN = b"H", b"G", b"P", b"T", b"R", b"U"


class Link:
    """The executor's end. Its event loop answers.

    Attributes:
        path: Address for workers, in a directory that only this user may enter.
        workers: Process ids of the workers that have called.
    """

    def __init__(self, kept: Blobs, reports: ReportReader) -> None:
        self._kept = kept
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._lock = runtime_directory() / f"executor-{os.getpid()}-{secrets.token_hex(4)}.lock"
        self._lock_fd = take_new(self._lock)
        self.path = str(self._lock.with_suffix(".sock"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self._loop.add_reader(self._listener.fileno(), self._accept)
        self._workers: dict[socket.socket, int] = {}

    @property
    def workers(self) -> list[int]:
        return [pid for pid in self._workers.values() if pid]

    def close(self) -> None:
        for worker in list(self._workers):
            self._drop(worker)
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        if self._lock_fd is not None:
            remove(self._lock)
            os.close(self._lock_fd)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            worker, _ = self._listener.accept()
            # Answers are a few bytes each, and the worker waits for them.
            worker.settimeout(5)
            self._workers[worker] = 0
            self._loop.add_reader(worker.fileno(), self._answer, worker)

    def _answer(self, worker: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(worker, _FRAME.size, 1)
            if len(data) != _FRAME.size:
                raise ConnectionError
            what, number, size = _FRAME.unpack(data)
            if what == PUT and fds:
                number = self._kept.take_in(fds[0], size)
                worker.sendall(_FRAME.pack(PUT, number, size))
            elif what == HELLO:
                self._workers[worker] = number
                _send(worker, HELLO, 0, 0, [_stream(1), _stream(2)])
            elif what == TRACKER:
                _send(worker, TRACKER, 0, 0, [os.dup(_tracker())])
            else:
                fd, size = self._shared(number) if what == GET else (self._reports.connect(), 0)
                if fd >= 0:
                    _send(worker, what, number, size, [fd])
                else:
                    worker.sendall(_FRAME.pack(UNKNOWN, 0, 0))
        except OSError:
            self._drop(worker)

    def _shared(self, number: int) -> tuple[int, int]:
        """Return a descriptor and the size of a blob; -1: its call was given up, or no more files
        can be opened.
        """
        try:
            return self._kept.share(number)
        except (KeyError, OSError):
            return -1, 0

    def _drop(self, worker: socket.socket) -> None:
        self._loop.remove_reader(worker.fileno())
        self._workers.pop(worker, None)
        worker.close()


class WorkerLink:
    """The worker's end."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def streams(self) -> list[int]:
        """Return descriptors of the caller's stdout and stderr."""
        return self._ask(HELLO, os.getpid(), 0)[2]

    def tracker(self) -> int:
        """Return a descriptor of the resource tracker of the caller."""
        return self._ask(TRACKER, 0, 0)[2][0]

    def reports(self) -> int | None:
        """Return a descriptor for reports; None if they can only go to the agent."""
        try:
            return self._ask(REPORTS, 0, 0)[2][0]
        except LookupError:
            return None

    def get(self, number: int) -> memoryview:
        """Map a blob of the executor."""
        _, size, fds = self._ask(GET, number, 0)
        return blobs.read(fds[0], size)

    def put(self, buffer: memoryview) -> int:
        """Give the executor a blob; return its number there."""
        fd = blobs.write(buffer)
        try:
            return self._ask(PUT, 0, buffer.nbytes, fd)[0]
        finally:
            os.close(fd)

    def close(self) -> None:
        self._socket.close()

    def _ask(self, what: bytes, number: int, size: int, *fds: int) -> tuple[int, int, list[int]]:
        socket.send_fds(self._socket, [_FRAME.pack(what, number, size)], list(fds))
        data, found, _, _ = socket.recv_fds(self._socket, _FRAME.size, 2, socket.MSG_WAITALL)
        if len(data) != _FRAME.size:
            raise ConnectionError("the executor is gone")
        answer, number, size = _FRAME.unpack(data)
        if answer == UNKNOWN:
            raise LookupError("the executor has given this call up")
        return number, size, list(found)


def _send(worker: socket.socket, what: bytes, number: int, size: int, fds: list[int]) -> None:
    """Send descriptors, and close them here."""
    try:
        socket.send_fds(worker, [_FRAME.pack(what, number, size)], fds)
    finally:
        for fd in fds:
            os.close(fd)


def _tracker() -> int:
    """Return the descriptor of this process's resource tracker, which is started for it."""
    fd = resource_tracker.getfd()
    assert fd is not None, "it was started"
    return fd


def _stream(fd: int) -> int:
    """Duplicate a standard stream of this process; the null device if it is closed."""
    try:
        return os.dup(fd)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
