"""The constants of one process: the values that it has put, for as long as somebody needs them.

Each is kept in one file without a name, which agents of this host open, and others fetch in parts.
It is needed by the ``Ref`` of who has put it, and by each open map that uses it. Agents ask from
time to time which ones are still needed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from jetmap.background import Background
from jetmap.errors import ClusterClosed, JetmapError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire.constants import Constant, ConstantsAnswer, ConstantsAsk
from jetmap.wire.memory_files import MemoryFile
from jetmap.wire.messages import PartRequest, encode

logger = logging.getLogger(__name__)

# Seconds that large keyword parameters are kept for the next call, and bytes of them, at most.
LINGER_SECONDS, LINGER_BYTES = 10.0, 64 << 20

_ask = msgspec.msgpack.Decoder(ConstantsAsk).decode


@dataclass(eq=False)
class _KeptFile:
    """A file, how many need it, and the agents that may have it too, by their inboxes."""

    file: MemoryFile
    users: int = 0
    agents: set[str] = field(default_factory=set)


class KeptConstants:
    """Keep the files of constants, and let agents have them.

    Args:
        connection: None in a process without workers of their own.
        inbox: Inbox of the dispatcher.
    """

    def __init__(self, connection: Broker | None, inbox: str) -> None:
        self._connection = connection
        self._inbox = inbox
        self._kept: dict[str, _KeptFile] = {}
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()  # Values may be put at the same time.
        self._background = Background("constants")
        self._is_closed = False
        self._lingering = 0  # Bytes of constants that are kept for the next call.
        _open.add(self)

    def __contains__(self, digest: str) -> bool:
        return digest in self._kept

    async def add(self, digest: str, file: MemoryFile) -> Constant:
        """Keep a file for one user more; if its content is known, the known file is used.

        Raises ClusterClosed, and closes the file then.
        """
        async with self._subscribing:
            if self._subscription is None and self._connection is not None and not self._is_closed:
                self._subscription = await self._connection.subscribe(
                    f"{self._inbox}.constants", self._on_ask
                )
        if self._is_closed or digest in self._kept:
            file.close()
        if self._is_closed:
            raise ClusterClosed("the cluster was closed")
        kept = self._kept.setdefault(digest, _KeptFile(file))
        kept.users += 1
        return Constant(digest, kept.file.size)

    def hold(self, digests: Iterable[str]) -> None:
        """Keep some files for one user more. Raises ValueError if one is not kept."""
        digests = list(digests)
        if not all(digest in self._kept for digest in digests):
            raise ValueError("a Ref was closed before its map began: put the value again")
        for digest in digests:
            self._kept[digest].users += 1

    def release(self, digests: Iterable[str]) -> None:
        """Keep some files for one user less; close those that nobody needs."""
        for digest in digests:
            kept = self._kept.get(digest)
            if kept is None:
                continue  # The cluster was closed meanwhile.
            kept.users -= 1
            if not kept.users:
                del self._kept[digest]
                kept.file.close()
                if kept.agents:
                    self._background.spawn(self._notify(kept.agents, digest), "release")

    def release_later(self, constant: Constant) -> None:
        """Release a constant soon, since the next call may have the same; a large one at once."""
        size = constant.size
        if self._lingering + size > LINGER_BYTES or self._is_closed:
            self.release([constant.digest])
            return
        self._lingering += size
        loop = asyncio.get_running_loop()
        loop.call_later(LINGER_SECONDS, self._on_lingered, constant)

    def _on_lingered(self, constant: Constant) -> None:
        self._lingering -= constant.size
        self.release([constant.digest])

    def view(self, digest: str) -> memoryview:
        """Return the bytes of a constant. Raises KeyError if it is not kept."""
        return self._kept[digest].file.view()

    def part(self, request: PartRequest) -> memoryview:
        """Return a part of a constant; empty if it is not kept any more."""
        kept = self._kept.get(request.map)
        if kept is None or kept.file.size != request.size:
            return memoryview(b"")
        return kept.file.view()[request.offset : request.offset + request.length]

    async def close(self) -> None:
        """Drop all files, and tell the agents."""
        if self._is_closed:
            return
        self._is_closed = True
        by_agent: dict[str, list[str]] = {}
        for digest, kept in self._kept.items():
            kept.file.close()
            for agent in kept.agents:
                by_agent.setdefault(agent, []).append(digest)
        self._kept.clear()
        for agent, digests in by_agent.items():
            await self._answer(agent, ConstantsAnswer(self._inbox, {}, digests))
        await self._background.close()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def let_go(self) -> None:
        """Close the files in a forked child, and nothing else: all else is its parent's."""
        self._is_closed = True
        for kept in self._kept.values():
            kept.file.close()
        self._kept.clear()

    async def _on_ask(self, message: Message) -> None:
        """Answer an agent: where the constants are that it asks for."""
        ask = _ask(message.data)
        answer = ConstantsAnswer(self._inbox, {}, [])
        for digest in ask.digests:
            if (kept := self._kept.get(digest)) is None:
                answer.unwanted.append(digest)
            else:
                kept.agents.add(ask.inbox)
                answer.places[digest] = kept.file.place
        await self._answer(ask.inbox, answer)

    async def _notify(self, agents: set[str], digest: str) -> None:
        for agent in agents:
            await self._answer(agent, ConstantsAnswer(self._inbox, {}, [digest]))

    async def _answer(self, agent: str, answer: ConstantsAnswer) -> None:
        if self._connection is None or not self._connection.connected:
            return
        try:
            await self._connection.publish(agent, encode(answer))
        except JetmapError as error:
            logger.debug("no answer about constants, the agent asks again: %s", error)


# Those that a forked child lets go of: it would keep their memory.
_open: weakref.WeakSet[KeptConstants] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for constants in list(_open):
        constants.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
