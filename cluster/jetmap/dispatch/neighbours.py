"""The agents of this host, which share memory with this dispatcher: their way to each other.

The first large items or values begin it. The dispatcher then makes its segment, and introduces
itself to the agents that announce a socket and run on this host; each answers with the segments of
its workers. A connection ends with either process. Items are put there only while every agent that
may take them is connected; an agent that cannot read them there asks for them in parts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable, Iterable
from socket import socket
from typing import cast

import msgspec

from jetmap.machine import boot_id
from jetmap.wire import shared_memory
from jetmap.wire.messages import PART_BYTES, SHARE_BYTES, ValuesPlace, encode
from jetmap.wire.presence import Presence
from jetmap.wire.shared_memory import ARENA, RETIRED, WELCOME, Introduction, Segment, View, Writer

from .flight import Flight
from .outcomes import Decode, Decoded

logger = logging.getLogger(__name__)

# Seconds that the segments of an agent are kept after its end: it may have reported before.
LINGER = 5.0

_introduction = msgspec.msgpack.Decoder(Introduction).decode


class NeighbourAgents:
    """The shared memory of one dispatcher.

    Args:
        inbox: Inbox of the dispatcher.
        size: Bytes of its segment; 0: nothing is shared.
        on_change: Called when an agent has come or gone.

    Attributes:
        unconfirmed: Bytes of values read since they were last confirmed.
    """

    def __init__(self, inbox: str, size: int, on_change: Callable[[], None]) -> None:
        self.unconfirmed = 0
        self._inbox = inbox
        self._size = size if shared_memory.is_available() else 0
        self._on_change = on_change
        self._machine = boot_id() if self._size else ""
        self._has_begun = False
        self._writer: Writer | None = None
        self._sockets: dict[str, socket] = {}
        self._connected: set[str] = set()  # Agents that have answered.
        self._views: dict[tuple[str, int], View] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def least(self) -> int:
        """Bytes of items above which they may be shared, or go in parts."""
        return SHARE_BYTES if self._size else PART_BYTES

    @property
    def has_any(self) -> bool:
        """Return whether an agent shares memory with this process now."""
        return bool(self._connected)

    @property
    def is_crowded(self) -> bool:
        """Return whether large items have to wait for others to end."""
        return self._writer is not None and self._writer.arena.is_crowded

    def are_all(self, agents: Iterable[Presence]) -> bool:
        """Return whether each of these agents shares memory with this process."""
        connected = self._connected
        return self.has_any and all(presence.agent in connected for presence in agents)

    def begin(self, agents: Iterable[Presence]) -> None:
        """Share memory with those of these agents that run on this host, and with later ones."""
        if not self._has_begun and self._size:
            self._has_begun = True
            for presence in agents:
                self.meet(presence)

    def meet(self, presence: Presence) -> None:
        """Introduce this process to an agent of this host, unless that was done."""
        if not self._has_begun or presence.agent in self._sockets or presence.gone:
            return
        if not presence.memory_socket or presence.machine != self._machine or not self._size:
            return
        if self._writer is None:
            try:
                self._writer = Writer(Segment.create(self._size))
            except OSError as error:
                logger.info("no memory is shared with the workers of this host: %s", error)
                self._size = 0
                return
            _open.add(self)
        sock = shared_memory.unix_socket()
        try:
            sock.connect("\0" + presence.memory_socket)
            if not shared_memory.is_own_user(sock):
                raise PermissionError("it belongs to another user")
            items = self._writer.segment.reopened()
            try:
                shared_memory.send(sock, encode((self._inbox, 0)), [items])
            finally:
                os.close(items)
            loop = asyncio.get_running_loop()
            loop.add_reader(sock, self._on_readable, presence.agent)
        except (OSError, NotImplementedError) as error:
            # Another network namespace or user, or it is just ending; the next announcement says.
            logger.debug("no memory is shared with agent %s: %s", presence.agent, error)
            sock.close()
            return
        self._sockets[presence.agent] = sock

    def put(self, flight: Flight) -> None:
        """Copy a chunk's items to a region, which is the chunk's until ``free``, if one is free."""
        if self._writer is not None and flight.region is None:
            flight.region = self._writer.put(flight.piece.items)

    def free(self, flight: Flight) -> None:
        """Take back the region of a chunk that has ended."""
        if flight.region is not None and self._writer is not None:
            self._writer.free(flight.region)
        flight.region = None

    def read(self, agent: str, place: ValuesPlace, decode: Decode | None = None) -> bytes | None:
        """Copy a report's values, or decode them there; None if they are not there any more."""
        key = agent, place.arena
        if key not in self._views and agent in self._sockets:
            self._on_readable(agent)  # They came before the report, on another way.
        view = self._views.get(key)
        self.unconfirmed += place.region.size
        if view is None:
            return None
        if decode is not None:
            try:
                decoded = view.read_by(decode, place.region)
            except Exception:  # A value does not fit: its reader finds it in a copy.
                decoded = None
            if decoded is not None:
                # Whoever decodes expects it in the place of bytes.
                return cast("bytes", Decoded(decoded, place.region.size))
        return view.read(place.region)

    def rest(self) -> None:
        """Give memory back that was not used for a while; called every second."""
        if self._writer is not None:
            self._writer.rest()

    def close(self) -> None:
        """Let go of everything; the event loop, which a forked child shares, is left alone."""
        _open.discard(self)
        for timer in self._timers.values():
            timer.cancel()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._connected.clear()
        for view in self._views.values():
            view.close()
        self._views.clear()
        if self._writer is not None:
            self._writer.segment.close()
            self._writer = None
        self._size = 0

    def leave(self) -> None:
        """End all connections, and let go of everything."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            loop.remove_reader(sock)
        self.close()

    def _on_readable(self, agent: str) -> None:
        """Process what an agent has sent."""
        sock = self._sockets.get(agent)
        while sock is not None:
            try:
                message, fds = shared_memory.receive(sock)
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
            try:
                if not message or not self._on_message(agent, _introduction(message), fds):
                    break
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                logger.warning("no memory is shared with agent %s: %s", agent, error)
                break
            finally:
                for fd in fds:
                    os.close(fd)
        if sock is not None:
            self._on_gone(agent, sock)

    def _on_message(self, agent: str, message: Introduction, fds: list[int]) -> bool:
        kind, arena = message
        if kind == ARENA and fds:
            self._views[agent, arena] = View(fds[0])
        elif kind == RETIRED:
            if (view := self._views.pop((agent, arena), None)) is not None:
                view.close()
        elif kind == WELCOME:
            self._connected.add(agent)
            self._on_change()
        else:
            return False
        return True

    def _on_gone(self, agent: str, sock: socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        sock.close()
        del self._sockets[agent]
        self._connected.discard(agent)
        if (former := self._timers.get(agent)) is not None:
            former.cancel()
        self._timers[agent] = loop.call_later(LINGER, self._forget, agent)
        self._on_change()

    def _forget(self, agent: str) -> None:
        self._timers.pop(agent, None)
        if agent not in self._sockets:
            for key in [key for key in self._views if key[0] == agent]:
                self._views.pop(key).close()


# Those that a forked child lets go of: it would keep their connections and memory.
_open: weakref.WeakSet[NeighbourAgents] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for neighbours in list(_open):
        neighbours.close()


os.register_at_fork(after_in_child=_let_go_in_child)
