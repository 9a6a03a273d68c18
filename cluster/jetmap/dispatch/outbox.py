"""Publish chunks to the work stream, follow the broker's acks, and take chunks back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from jetmap.background import Background
from jetmap.errors import JetmapError, TooLarge
from jetmap.nats.answers import Published, fate_of
from jetmap.nats.broker import Broker
from jetmap.settings import Settings
from jetmap.wire import pool_streams, subjects
from jetmap.wire.budget import Budget
from jetmap.wire.messages import (
    Chunk,
    ChunkKey,
    Confirmation,
    Hurry,
    Place,
    Withdraw,
    encode,
)
from jetmap.wire.protocol import PROTOCOL
from jetmap.wire.seals import Sealer

from .ack_sampler import AckSampler
from .costs import Cutting
from .flight import Flight
from .open_map import OpenMap
from .sharing import Sent

logger = logging.getLogger(__name__)

_NO_BUDGET = Budget(0.0)  # A chunk of one item has nothing to give back.
AVOID_SECONDS = 30.0  # Seconds without chunks for a shard that nothing answers for.
CONFIRM_BATCH = 64  # Confirmations that share a message, at most.
CONFIRM_SECONDS = 0.25  # Seconds a confirmation waits for others; nothing waits for it.

FENCE_SECONDS = 2.0  # Seconds the broker has to answer a fence.
# Header of a publish that the broker answers in its turn, with an error: it expects a stream that
# does not exist.
FENCE = {"Nats-Expected-Stream": "none"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker has these chunks.

    Attributes:
        had_them: Whether it had stored them before.
    """

    chunks: list[ChunkKey]
    had_them: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker refused these chunks, or may have refused them.

    Attributes:
        stream_is_gone: Whether nothing answers for the work stream.
    """

    chunks: list[ChunkKey]
    stream_is_gone: bool


@dataclass(frozen=True, slots=True)
class Unsendable:
    """These chunks never fit into one of the broker's messages."""

    chunks: list[Sent]
    message: str


class Outbox:
    """Send a dispatcher's chunks and confirmations; return what became of them as events."""

    def __init__(
        self,
        connection: Broker,
        settings: Settings,
        cutting: Cutting,
        inbox: str,
        background: Background,
        sealer: Sealer | None,
    ) -> None:
        self._connection = connection
        self._pool = settings.broker.pool
        self._stream = settings.stream
        self._sealer = sealer
        self.cutting = cutting  # Fitted to the pool, as that changes.
        self._inbox = inbox
        self._background = background
        self._sampler: AckSampler[list[ChunkKey]] = AckSampler()
        self._tokens: dict[str, list[int]] = {}
        self._confirming: asyncio.TimerHandle | None = None
        self._renewing = False
        self._avoided: dict[str, float] = {}  # Shards without a server, and the end of that.

    async def publish(self, parcel: list[Sent]) -> Unsendable | None:
        """Send chunks in one message. If it asks for an ack, ``on_ack`` follows.

        A message that is lost without an ack is found by silence; the next try asks for one.
        """
        map, first = parcel[0]
        if self._avoided:
            self._forget_avoided()
        if not first.subject or (
            self._avoided and subjects.queue_of(first.subject) in self._avoided
        ):
            # A message that several maps share must not be purged with one of them.
            shared = map.id if len(parcel) == 1 else subjects.new_id()
            queue = subjects.queue(self._pool, first.offer, shared, self._avoided)
            subject = subjects.work(queue, first.offer, first.piece.lane, shared, first.number)
            for _, flight in parcel:
                flight.subject = subject
            map.queues.add(queue)
        keys = [(map.id, flight.number) for map, flight in parcel]
        again = any(flight.attempt > 1 for _, flight in parcel)
        number = self._sampler.sample(keys, time.monotonic(), ask=again)
        reply = "" if number is None else f"{self._inbox}.ack.{number}"
        chunks = [self._chunk(map, flight) for map, flight in parcel]
        try:
            await self._connection.publish(first.subject, encode(chunks), reply)
        except TooLarge as error:
            # Cut for a larger message: the broker has been replaced by one that takes less.
            if self._shrink(parcel):
                return await self.publish(parcel)
            return Unsendable(parcel, str(error))
        except JetmapError as error:
            # Not connected, and the buffer is full: recovery sends it again.
            logger.debug("%s not sent: %s", first.subject, error)
        return None

    def avoid(self, flight: Flight) -> None:
        """Send no chunks to the shard of this one for a while: nothing answers there."""
        if subjects.is_shard(queue := subjects.queue_of(flight.subject)):
            self._avoided[queue] = time.monotonic() + AVOID_SECONDS

    def _forget_avoided(self) -> None:
        now = time.monotonic()
        self._avoided = {queue: until for queue, until in self._avoided.items() if until > now}

    def _shrink(self, parcel: list[Sent]) -> bool:
        """Let fewer items travel in messages; return whether that may help."""
        before = [map.inline for map, _ in parcel]
        for map, _ in parcel:
            map.room = min(map.room, max(1, self._connection.room - map.overhead))
            map.inline = min(map.inline, map.room)
            map.large = min(map.large, map.inline)
        return [map.inline for map, _ in parcel] != before

    async def publish_again(self, chunks: list[Sent]) -> list[Unsendable]:
        """Send chunks again that are still out; those that shared a message share one again."""
        parcels: dict[str, list[Sent]] = {}
        for map, flight in chunks:
            if flight.number in map.ledger.flights:
                parcels.setdefault(flight.subject, []).append((map, flight))
        events = [await self.publish(parcel) for parcel in parcels.values()]
        return [event for event in events if event is not None]

    def _chunk(self, map: OpenMap, flight: Flight) -> Chunk:
        piece, spec = flight.piece, map.spec
        budget = _NO_BUDGET
        if piece.count > 1:
            budget = self.cutting.budget(flight.seconds, piece.count, is_sure=map.pace.is_sure)
        sealer = self._sealer if spec.ref is not None else None
        at, items = None, piece.items
        if len(items) > map.large and not flight.is_inline:
            at = self._place(map, flight)
        if type(items) is not bytes:
            items = piece.encoded if at is None or sealer is not None else b""
        chunk = Chunk(
            map=map.id,
            number=flight.number,
            attempt=flight.attempt,
            function=spec.function,
            format=spec.format,
            start=piece.start,
            count=piece.count,
            inbox=self._inbox,
            timeout=spec.item_timeout,
            budget=budget.seconds,
            items=items,
            kwargs=spec.kwargs,
            ref=spec.ref,
            each=budget.each,
            protocol=PROTOCOL,
            causes=spec.causes,
            tries=piece.tries,
            values=spec.values,
            traceparent="" if map.span is None else map.span.parent_of(flight.number),
            batch=None if piece.apart else spec.batch,
            stretches=map.ledger.attempts > 1,
        )
        if sealer is not None:
            sealer.seal(chunk)  # Its items, too, wherever they are.
        if at is not None:
            chunk.items, chunk.at = b"", at
        return chunk

    def _place(self, map: OpenMap, flight: Flight) -> Place | None:
        """Return where a chunk's large items are; None if they travel with it."""
        size, region = len(flight.piece.items), flight.region
        if region is not None and region.size != size:
            region = None  # It goes out again, and has given back some items meanwhile.
        return Place(self._inbox, size, region) if region is not None or size > map.inline else None

    def on_ack(self, subject: str, answer: bytes) -> Accepted | Refused:
        """Process the broker's ack, or its refusal."""
        number = int(subject.rpartition(".")[2])
        fate = fate_of(answer)
        if fate is not Published.REFUSED:
            return Accepted(self._sampler.on_stored(number) or [], fate is Published.THERE)
        doubtful = self._sampler.on_refused(number, time.monotonic())
        return Refused([key for keys in doubtful for key in keys], not answer)

    async def renew_stream(self) -> None:
        """Create the work stream if it is gone."""
        if self._renewing:
            return
        self._renewing = True
        try:
            await pool_streams.ensure_stream(self._connection, self._pool, self._stream)
        except JetmapError as error:
            logger.debug("the work stream cannot be created yet: %s", error)
        finally:
            self._renewing = False

    async def withdraw(self, map: OpenMap) -> None:
        """Take back the chunks of a map that are out: stop its workers, then empty its queue.

        The queue is purged once more behind a fence: the broker may have taken the first purge
        before the chunks that were published last.
        """
        queues = map.queues or {self._pool}
        await self.recall(map.id, queues)
        for queue in queues:
            fence = subjects.work(queue, "fence", "main", map.id, 0)
            try:
                await self._connection.request(fence, b"", FENCE_SECONDS, headers=FENCE)
                await self._purge(queue, map.id)
            except JetmapError as error:
                # When the broker is back, agents learn from their claims what is no longer wanted.
                logger.debug("map %s could not be called back: %s", map.id, error)

    async def recall(self, map_id: str, queues: Collection[str]) -> None:
        """Stop the workers of a map, and empty its queues; another dispatcher may have run it."""
        try:
            control = subjects.control(self._pool)
            await self._connection.publish(control, encode(Withdraw(map_id)))
            for queue in queues:
                await self._purge(queue, map_id)
        except JetmapError as error:
            # Nobody answers the claims on what is left, so the agents drop it.
            logger.debug("map %s could not be called back: %s", map_id, error)

    async def hurry(self, map_id: str, chunk: int) -> None:
        """Let the long chunks of a map end early, up to this one."""
        request = Hurry(map_id, chunk, self.cutting.longest)
        try:
            await self._connection.publish(subjects.control(self._pool), encode(request))
        except JetmapError as error:
            logger.debug("the chunks of map %s go on to their end: %s", map_id, error)

    async def _purge(self, queue: str, map_id: str) -> None:
        if queue not in self._avoided:
            subject = subjects.map_work(queue, map_id)
            await pool_streams.purge(self._connection, queue, subject)

    async def take_back(self, flight: Flight) -> None:
        """Remove a message that no agent has taken, with all the chunks that share it."""
        queue = subjects.queue_of(flight.subject)
        if queue in self._avoided:
            return
        try:
            await pool_streams.purge(self._connection, queue, flight.subject)
        except JetmapError as error:
            logger.debug("%s could not be purged: %s", flight.subject, error)

    async def confirm(self, inbox: str, token: int) -> None:
        """Allow the agent of this inbox to drop a delivery. Sent soon, with other confirmations."""
        tokens = self._tokens.setdefault(inbox, [])
        tokens.append(token)
        if len(tokens) >= CONFIRM_BATCH:
            await self.confirm_now()
        elif self._confirming is None:
            loop = asyncio.get_running_loop()
            self._confirming = loop.call_later(CONFIRM_SECONDS, self._confirm_soon)

    async def confirm_now(self) -> None:
        """Send the gathered confirmations."""
        tokens, self._tokens = self._tokens, {}
        for inbox, confirmed in tokens.items():
            try:
                await self._connection.publish(inbox, encode(Confirmation(confirmed)))
            except JetmapError as error:
                logger.debug("reports not confirmed, the agent sends them again: %s", error)

    def close(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()

    def _confirm_soon(self) -> None:
        self._confirming = None
        self._background.spawn(self.confirm_now(), "confirm")
