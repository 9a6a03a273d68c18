"""The short way of reports: from a worker to its executor, past the agent and the broker.

Each worker has a socket of its own, whose messages are whole or not sent. A worker that finds it
full, or whose report is too long for it, sends the report to its agent as other workers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

import msgspec

from jetmap.wire.messages import Report

MOST_BYTES = 65_536  # Bytes of a report that goes this way, at most.
MOST_AT_ONCE = 128  # Reports that are read before the event loop does something else.

_decode = msgspec.msgpack.Decoder(Report).decode


class ReportReader:
    """The executor's ends. Its event loop reads.

    Args:
        receive: Called with the reports that have arrived, in each worker's order.
    """

    def __init__(self, receive: Callable[[list[Report]], None]) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._workers: set[socket.socket] = set()
        self._view = memoryview(bytearray(MOST_BYTES))

    def connect(self) -> int:
        """Return a descriptor of a new worker's end; -1 if there are no such sockets, or files.

        Its reports then go to its agent.
        """
        if not hasattr(socket, "SOCK_SEQPACKET"):
            return -1
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return -1
        ours.setblocking(False)
        self._workers.add(ours)
        self._loop.add_reader(ours.fileno(), self._read, ours, MOST_AT_ONCE)
        return theirs.detach()

    def read(self) -> None:
        """Take in everything that has arrived.

        What a worker has sent this way arrived before anything that its agent says of it later.
        """
        for worker in list(self._workers):
            while self._read(worker, MOST_AT_ONCE):
                pass

    def close(self) -> None:
        for worker in list(self._workers):
            self._drop(worker)

    def _read(self, worker: socket.socket, most: int) -> bool:
        """Take in reports of one worker; return whether there may be more."""
        reports: list[Report] = []
        view, has_more = self._view, True
        try:
            while has_more and len(reports) < most:
                if size := worker.recv_into(view):
                    reports.append(_decode(view[:size]))
                else:
                    self._drop(worker)
                    has_more = False
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self._drop(worker)
            has_more = False
        if reports:
            self._receive(reports)
        return has_more

    def _drop(self, worker: socket.socket) -> None:
        if worker in self._workers:
            self._workers.discard(worker)
            self._loop.remove_reader(worker.fileno())
            worker.close()


class ReportSender:
    """A worker's end."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)

    def send(self, report: bytes) -> bool:
        """Send an encoded report; return whether it was sent."""
        if len(report) <= MOST_BYTES:
            with contextlib.suppress(OSError):
                return self._socket.send(report, self._flags) == len(report)
        return False

    def close(self) -> None:
        self._socket.close()
