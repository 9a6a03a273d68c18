"""Large items and values, which travel in parts beside their messages.

An agent asks the dispatcher that holds a chunk's items for their parts, and pushes the parts of
large values to it before it reports. Each part has a name (chunk, offset), so one that comes twice
does no harm, and one that is lost is asked for again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import subjects
from jetmap.wire.constants import NUMBER, Constant
from jetmap.wire.messages import PART_BYTES, PartRequest, Place, ReportHead, encode

from .holdings import HeldChunk

logger = logging.getLogger(__name__)

PARTS_OUT = 8  # Parts of one chunk that are asked for, or pushed, at once.
AGAIN_SECONDS = 1.0  # Seconds without an answer after which a part counts as lost.


class Transfer:
    """Choose the parts of some bytes to send, or to ask for, now. No I/O; times are passed in.

    A part is lost if nothing of the transfer has arrived since it was asked for, for a second, or
    if one that was asked for after it has. (Over a slow link, parts wait for those before them.)
    """

    def __init__(self, size: int, part_bytes: int) -> None:
        self.part_bytes = part_bytes
        self._size = size
        self._waiting = deque(range(0, size, part_bytes))
        self._out: dict[int, tuple[float, int]] = {}  # By offset: when, and which in order.
        self._left = len(self._waiting)
        self._orders = itertools.count(1)
        self._latest = 0  # The latest in order of those answered.
        self._heard = 0.0

    @property
    def is_complete(self) -> bool:
        return not self._left

    def length(self, offset: int) -> int:
        """Return the bytes of the part at this offset."""
        return min(self.part_bytes, self._size - offset)

    def due(self, now: float) -> list[int]:
        """Return the offsets of the parts to ask for now, which count as asked for."""
        due = [offset for offset, asked in self._out.items() if self._is_lost(*asked, now)]
        while self._waiting and len(self._out) < PARTS_OUT:
            offset = self._waiting.popleft()
            self._out[offset] = now, 0
            due.append(offset)
        for offset in due:
            self._out[offset] = now, next(self._orders)
        return due

    def _is_lost(self, at: float, order: int, now: float) -> bool:
        if now - at < AGAIN_SECONDS:
            return False
        return order < self._latest or now - self._heard >= AGAIN_SECONDS

    def on_done(self, offset: int, now: float) -> bool:
        """Note the answer about a part; return whether it is the first one."""
        self._heard = now
        asked = self._out.pop(offset, None)
        if asked is None:
            return False
        self._latest = max(self._latest, asked[1])
        self._left -= 1
        return True


class Wanted(Protocol):
    """The purpose of a transfer, such as a ``HeldChunk``."""

    @property
    def key(self) -> object: ...
    @property
    def unwanted(self) -> bool: ...


class Sink(Protocol):
    """A place for parts as they arrive, such as a dict."""

    def __setitem__(self, offset: int, part: bytes, /) -> None: ...
    def clear(self) -> None: ...


@dataclass(eq=False)
class _Running:
    """A transfer and what has arrived of it."""

    transfer: Transfer
    is_push: bool
    parts: Sink
    refused: bool = False  # The dispatcher does not want the chunk any more.
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Transfers:
    """The transfers of one agent.

    Args:
        agent: Id of the agent.
        inbox: Its inbox.
    """

    def __init__(self, connection: Broker, agent: str, inbox: str) -> None:
        self._connection = connection
        self._agent = agent
        self._inbox = f"{inbox}.part"
        self._numbers = itertools.count()
        self._running: dict[int, _Running] = {}
        self._subscription: Subscription | None = None

    @property
    def is_idle(self) -> bool:
        return not self._running

    async def start(self) -> None:
        self._subscription = await self._connection.subscribe(
            f"{self._inbox}.*.*", self._on_answer, direct=True
        )

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def check(self) -> None:
        """Let each transfer see whether its chunk is still wanted."""
        for running in self._running.values():
            running.changed.set()

    async def fetch(self, held: HeldChunk, place: Place) -> list[bytes] | None:
        """Return the items of a chunk, in parts; None if it is no longer wanted."""
        head, subject = held.head, f"{place.inbox}.part"

        async def ask(offset: int, length: int, reply: str) -> None:
            request = PartRequest(head.map, head.number, place.size, offset, length)
            await self._connection.publish(subject, encode(request), reply)

        parts: dict[int, bytes] = {}
        if not await self._run(held, place.size, ask, parts, is_push=False):
            return None
        return [parts[at] for at in sorted(parts)]

    async def fetch_constant(
        self, wanted: Wanted, constant: Constant, inbox: str, sink: Sink
    ) -> bool:
        """Fetch the bytes of a constant; return False if they are no longer wanted, or gone."""
        subject = f"{inbox}.part"

        async def ask(offset: int, length: int, reply: str) -> None:
            size = constant.size
            request = PartRequest(constant.digest, NUMBER, size, offset, length)
            await self._connection.publish(subject, encode(request), reply)

        return await self._run(wanted, constant.size, ask, sink, is_push=False)

    async def push(self, held: HeldChunk, report: ReportHead, values: bytes) -> bool:
        """Give a report's values to its dispatcher; False if they are no longer wanted."""
        name = subjects.values_part(
            held.head.inbox, self._agent, report.map, report.number, report.attempt, report.start
        )
        view = memoryview(values)

        async def send(offset: int, length: int, reply: str) -> None:
            part = view[offset : offset + length]
            await self._connection.publish(f"{name}.{offset}", part, reply)

        return await self._run(held, len(values), send, {}, is_push=True)

    async def _run(
        self,
        held: Wanted,
        size: int,
        send: Callable[[int, int, str], Awaitable[None]],
        parts: Sink,
        *,
        is_push: bool,
    ) -> bool:
        """Carry out a transfer; return False if it is no longer wanted."""
        number = next(self._numbers)
        running = _Running(Transfer(size, self._part_bytes), is_push, parts)
        self._running[number] = running
        try:
            while not running.transfer.is_complete:
                if self._part_bytes < running.transfer.part_bytes:
                    # The broker was replaced by one with smaller messages.
                    running.transfer = Transfer(size, self._part_bytes)
                    running.parts.clear()
                transfer = running.transfer
                running.changed.clear()
                for offset in transfer.due(time.monotonic()):
                    reply = f"{self._inbox}.{number}.{offset}"
                    try:
                        await send(offset, transfer.length(offset), reply)
                    except JetmapError as error:
                        logger.debug("part %s of %s not sent: %s", offset, held.key, error)
                try:
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await running.changed.wait()
                except TimeoutError:
                    pass  # Ask again for what has not arrived.
                if held.unwanted or running.refused:
                    return False
            return True
        finally:
            del self._running[number]

    @property
    def _part_bytes(self) -> int:
        return min(PART_BYTES, self._connection.room)

    async def _on_answer(self, message: Message) -> None:
        """Process a part of items, or that a part of values has arrived."""
        if message.headers:
            return  # Nobody listens now: the dispatcher may be connecting again.
        _, number, offset = message.subject.rsplit(".", 2)
        running, at = self._running.get(int(number)), int(offset)
        if running is None:
            return
        # Of items, an empty answer says that they are gone; of values, that they have arrived.
        if bool(message.data) is running.is_push:
            running.refused = True
        elif running.is_push:
            running.transfer.on_done(at, time.monotonic())
        elif len(message.data) == running.transfer.length(at):
            running.parts[at] = message.data
            running.transfer.on_done(at, time.monotonic())
        running.changed.set()
