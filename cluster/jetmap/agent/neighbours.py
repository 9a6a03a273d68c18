"""The dispatchers of this host, which share memory with this agent's workers.

The agent announces an abstract socket. A dispatcher of the same user introduces itself there with
its segment of items; the agent passes that on to each worker, with a segment for the worker's own
values, and sends those segments to the dispatcher. A connection ends with either process, whatever
ends it, and the segments then lose their last users.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from dataclasses import dataclass, field
from functools import partial
from socket import SOMAXCONN, socket
from typing import Protocol

import msgspec

from jetmap.wire import frames, shared_memory
from jetmap.wire.messages import Region, ValuesPlace, encode
from jetmap.wire.shared_memory import ARENA, RETIRED, WELCOME, Introduction, Segment, View
from jetmap.wire.worker_start import Joined, Unshared

logger = logging.getLogger(__name__)

_introduction = msgspec.msgpack.Decoder(Introduction).decode
_place = msgspec.msgpack.Decoder(ValuesPlace).decode


class Worker(Protocol):
    """A worker process, as ``worker_process.py`` describes it."""

    def send(self, kind: bytes, payload: bytes) -> None: ...


@dataclass(eq=False)
class Values:
    """The segment of one worker's values.

    Attributes:
        lent: Regions whose reports are not confirmed.
    """

    number: int
    segment: Segment
    lent: int = 0
    was_used: bool = False  # Since the last ``rest``.
    is_closed: bool = False


@dataclass(eq=False)
class RegionLoan:
    """A region with a report's values, until the report is confirmed."""

    neighbours: NeighbourDispatchers
    values: Values
    region: Region

    def end(self) -> None:
        """Let the worker use the region again."""
        self.neighbours.on_loan_ended(self)


@dataclass(eq=False)
class Neighbour:
    """A dispatcher of this host. items: descriptor of its segment; None before it has come."""

    sock: socket
    inbox: str = ""
    items: int | None = None


@dataclass(eq=False)
class NeighbourDispatchers:
    """The dispatchers that share memory with one agent's workers.

    Args:
        name: Name of the socket.
        size: Bytes of the segment of each worker; 0: nothing is shared.
    """

    name: str
    size: int
    _socket: socket | None = None
    _met: list[Neighbour] = field(default_factory=list)
    _by_inbox: dict[str, Neighbour] = field(default_factory=dict)
    _workers: dict[Worker, Values | None] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __contains__(self, inbox: str) -> bool:
        """Return whether the workers can read this dispatcher's items."""
        return inbox in self._by_inbox

    def start(self) -> None:
        """Listen, if this system can."""
        if not self.size or not shared_memory.is_available():
            self.name = ""
            return
        sock = shared_memory.unix_socket()
        try:
            os.close(os.open("/proc/self/fd/0", os.O_RDONLY | os.O_CLOEXEC | os.O_PATH))
            sock.bind("\0" + self.name)
            sock.listen(SOMAXCONN)
            asyncio.get_running_loop().add_reader(sock, self._on_connection, sock)
        except (OSError, NotImplementedError) as error:
            logger.debug("no memory is shared with dispatchers: %s", error)
            sock.close()
            self.name = ""
            return
        self._socket = sock

    def stop(self) -> None:
        """End all connections, and share nothing any more."""
        self.name = ""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for neighbour in list(self._met):
            self._drop(neighbour)
        for worker in list(self._workers):
            self.remove(worker)

    # Workers

    def add(self, worker: Worker) -> None:
        """Let a new worker share memory with the dispatchers that do, and will."""
        self._workers[worker] = None
        for neighbour in list(self._by_inbox.values()):  # One that has gone is dropped.
            self._join(worker, neighbour)

    def remove(self, worker: Worker) -> None:
        """Close the segment of a dead worker; dispatchers keep it until they have read it."""
        values = self._workers.pop(worker, None)
        if values is not None:
            values.is_closed = True
            values.segment.close()
            self._retire(values)

    def rest(self, worker: Worker) -> None:
        """Give the memory of an idle worker's segment back; it writes none while it is idle."""
        values = self._workers.get(worker)
        if values is None or values.lent:
            return
        if not values.was_used:
            values.segment.give_back()
        values.was_used = False

    def on_unshared(self, notice: Unshared) -> None:
        """Share nothing any more if a worker cannot map the memory of a dispatcher that is there.

        A worker that was busy may have looked for it when the dispatcher had left.
        """
        neighbour = self._by_inbox.get(notice.inbox)
        if neighbour is None or neighbour.items != notice.items:
            return
        logger.warning("workers cannot share memory with dispatchers: %s", notice.message)
        self.stop()

    def lend(self, worker: Worker, place: bytes) -> RegionLoan | None:
        """Note that a worker's next report has its values in a region; None if it is dead."""
        values = self._workers.get(worker)
        if values is None:
            return None
        values.lent += 1
        values.was_used = True
        return RegionLoan(self, values, _place(place).region)

    def on_loan_ended(self, loan: RegionLoan) -> None:
        values = loan.values
        values.lent -= 1
        if not values.is_closed:
            values.segment.erase(loan.region.offset)
        else:
            self._retire(values)

    def _retire(self, values: Values) -> None:
        """Let dispatchers drop the segment of a dead worker when all its reports are confirmed."""
        if not values.lent:
            for neighbour in list(self._by_inbox.values()):
                self._send(neighbour, (RETIRED, values.number), [])

    # Dispatchers

    def _on_connection(self, listening: socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return  # None is left, or there is no descriptor for it.
            sock.setblocking(False)
            if not shared_memory.is_own_user(sock):
                sock.close()
                continue
            neighbour = Neighbour(sock)
            self._met.append(neighbour)
            readable = partial(self._on_readable, neighbour)
            asyncio.get_running_loop().add_reader(sock, readable)

    def _on_readable(self, neighbour: Neighbour) -> None:
        """Process a dispatcher's introduction, or its end."""
        try:
            message, fds = shared_memory.receive(neighbour.sock)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if message and neighbour.items is None and len(fds) == 1:
            try:
                View(fds[0]).close()
                neighbour.inbox = _introduction(message)[0]
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                logger.warning("a dispatcher's memory cannot be shared: %s", error)
            else:
                neighbour.items = fds[0]
                self._welcome(neighbour)
                return
        for fd in fds:
            os.close(fd)
        self._drop(neighbour)

    def _welcome(self, neighbour: Neighbour) -> None:
        if (former := self._by_inbox.get(neighbour.inbox)) is not None:
            self._drop(former)
        self._by_inbox[neighbour.inbox] = neighbour
        for worker in list(self._workers):
            self._join(worker, neighbour)
        self._send(neighbour, (WELCOME, 0), [])

    def _join(self, worker: Worker, neighbour: Neighbour) -> None:
        """Show a worker and a dispatcher each other's segments."""
        if neighbour.items is None:
            return  # It has gone meanwhile.
        try:
            values = self._values_of(worker)
            own = values.segment.reopened()
        except OSError as error:
            logger.info("no memory is shared with dispatchers: %s", error)
            self._drop(neighbour)
            return
        try:
            # In this order: a report must not come before the segment that it is about.
            self._send(neighbour, (ARENA, values.number), [own])
        finally:
            os.close(own)
        if neighbour.items is not None:
            joined = Joined(neighbour.inbox, neighbour.items, values.segment.fd, values.number)
            worker.send(frames.JOINED, encode(joined))

    def _values_of(self, worker: Worker) -> Values:
        """Return a worker's segment, made when it is first needed. Raises OSError."""
        values = self._workers[worker]
        if values is None:
            values = Values(next(self._numbers), Segment.create(self.size))
            self._workers[worker] = values
        return values

    def _send(self, neighbour: Neighbour, message: Introduction, fds: list[int]) -> None:
        try:
            shared_memory.send(neighbour.sock, encode(message), fds)
        except OSError as error:  # It has ended, or hears nothing any more.
            logger.debug("a dispatcher of this host is gone: %s", error)
            self._drop(neighbour)

    def _drop(self, neighbour: Neighbour) -> None:
        if neighbour not in self._met:
            return
        self._met.remove(neighbour)
        asyncio.get_running_loop().remove_reader(neighbour.sock)
        neighbour.sock.close()
        if neighbour.items is None:
            return
        os.close(neighbour.items)
        neighbour.items = None
        if self._by_inbox.get(neighbour.inbox) is neighbour:
            del self._by_inbox[neighbour.inbox]
            for worker in self._workers:
                worker.send(frames.LEFT, neighbour.inbox.encode())
