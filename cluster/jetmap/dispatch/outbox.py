"""Publish chunks to the work stream, follow the broker's acks, and take chunks back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from jetmap.errors import JetmapError, TooLarge
from jetmap.nats.broker import Broker, Message
from jetmap.wire import pool_streams, subjects
from jetmap.wire.messages import PROTOCOL, Chunk, Confirmation, Withdraw, encode

from .ack_sampler import AckSampler
from .costs import Cutting
from .flight import Flight
from .open_map import OpenMap
from .options import DispatchOptions

logger = logging.getLogger(__name__)

CONFIRM_BATCH = 64  # Confirmations that share a message, at most.
CONFIRM_SECONDS = 0.25  # Seconds a confirmation waits for others; nothing waits for it.

FENCE_SECONDS = 2.0  # Seconds the broker has to answer a fence.
# Header of a publish that the broker answers in its turn, with an error: it expects a stream that
# does not exist.
FENCE = {"Nats-Expected-Stream": "none"}

Spawn = Callable[..., Any]
Key = tuple[str, int]  # A chunk: its map's id and its number.


class Outbox:
    """Send a dispatcher's chunks and confirmations.

    Args:
        on_refused: Called with chunks that the broker refused, or may have refused.
        on_stored: Called with chunks that the broker has stored.
        on_unsendable: Called with chunks that are too large for the broker, and the reason.
    """

    def __init__(
        self,
        connection: Broker,
        options: DispatchOptions,
        cutting: Cutting,
        inbox: str,
        *,
        on_refused: Callable[[list[Key]], None],
        on_stored: Callable[[list[Key]], None],
        on_unsendable: Callable[[list[Key], str], None],
        spawn: Spawn,
    ) -> None:
        self._connection = connection
        self._options = options
        self._cutting = cutting
        self._inbox = inbox
        self._on_refused = on_refused
        self._on_stored = on_stored
        self._on_unsendable = on_unsendable
        self._spawn = spawn
        self._sampler: AckSampler[list[Key]] = AckSampler()
        self._tokens: dict[str, list[int]] = {}
        self._confirming: asyncio.TimerHandle | None = None
        self._renewing = False

    async def publish(self, parcel: list[tuple[OpenMap, Flight]]) -> None:
        """Send chunks in one message. If it asks for an ack, ``on_ack`` follows.

        A message that is lost without an ack is found by silence; the next try asks for one.
        """
        map, first = parcel[0]
        if not first.subject:
            # A message that several maps share must not be purged with one of them.
            shared = map.id if len(parcel) == 1 else subjects.new_id()
            pool = self._options.pool
            subject = subjects.work(pool, first.offer, first.lane, shared, first.number)
            for _, flight in parcel:
                flight.subject = subject
        keys = [(map.id, flight.number) for map, flight in parcel]
        again = any(flight.attempt > 1 for _, flight in parcel)
        number = self._sampler.sample(keys, time.monotonic(), ask=again)
        reply = "" if number is None else f"{self._inbox}.ack.{number}"
        chunks = [self._chunk(map, flight) for map, flight in parcel]
        try:
            await self._connection.publish(first.subject, encode(chunks), reply)
        except TooLarge as error:
            # Cut for a larger message: the broker has been replaced by one that takes less.
            self._on_unsendable(keys, str(error))
        except JetmapError as error:
            # Not connected, and the buffer is full: recovery sends it again.
            logger.debug("%s not sent: %s", first.subject, error)

    async def publish_again(self, chunks: list[tuple[OpenMap, Flight]]) -> None:
        """Send chunks again that are still out; those that shared a message share one again."""
        parcels: dict[str, list[tuple[OpenMap, Flight]]] = {}
        for map, flight in chunks:
            if flight.number in map.ledger.flights:
                parcels.setdefault(flight.subject, []).append((map, flight))
        for parcel in parcels.values():
            await self.publish(parcel)

    def _chunk(self, map: OpenMap, flight: Flight) -> Chunk:
        piece = flight.piece
        budget = self._cutting.budget(flight.seconds, piece.count, is_sure=map.pace.is_sure)
        chunk = Chunk(
            map=map.id,
            number=flight.number,
            attempt=flight.attempt,
            function=map.spec.function,
            format=map.spec.format,
            start=piece.start,
            count=piece.count,
            inbox=self._inbox,
            timeout=map.spec.item_timeout,
            budget=budget.seconds,
            items=piece.items,
            kwargs=map.spec.kwargs,
            ref=map.spec.ref,
            each=budget.each,
            protocol=PROTOCOL,
        )
        if map.spec.ref is not None and self._options.sealer is not None:
            self._options.sealer.seal(chunk)
        return chunk

    async def on_ack(self, message: Message) -> None:
        """Take in the broker's ack, or its refusal."""
        number = int(message.subject.rpartition(".")[2])
        # A message that is refused because the stream has it already is where it belongs.
        if message.data and (b'"error"' not in message.data or b"per subject" in message.data):
            self._on_stored(self._sampler.on_stored(number) or [])
            return
        doubtful = self._sampler.on_refused(number, time.monotonic())
        self._on_refused([key for keys in doubtful for key in keys])
        if not message.data and not self._renewing:
            self._renewing = True
            self._spawn(self.renew_stream())

    async def renew_stream(self) -> None:
        """Create the work stream if it is gone."""
        try:
            await pool_streams.ensure_stream(
                self._connection, self._options.pool, self._options.settings.stream
            )
        except JetmapError as error:
            logger.debug("the work stream cannot be created yet: %s", error)
        finally:
            self._renewing = False

    async def withdraw(self, map: OpenMap) -> None:
        """Take back the chunks of a map that are out: stop its workers, then empty its queue.

        The queue is purged once more behind a fence: the broker may have taken the first purge
        before
        the chunks that were published last.
        """
        pool = self._options.pool
        fence = subjects.work(pool, "fence", "main", map.id, 0)
        try:
            await self.recall(map.id)
            await self._connection.request(fence, b"", FENCE_SECONDS, headers=FENCE)
            await pool_streams.purge(self._connection, pool, subjects.map_work(pool, map.id))
        except JetmapError as error:
            # When the broker is back, agents learn from their claims what is no longer wanted.
            logger.debug("map %s could not be called back: %s", map.id, error)

    async def recall(self, map_id: str) -> None:
        """Stop the workers of a map, and empty its queue; another dispatcher may have run it."""
        pool = self._options.pool
        try:
            await self._connection.publish(subjects.control(pool), encode(Withdraw(map_id)))
            await pool_streams.purge(self._connection, pool, subjects.map_work(pool, map_id))
        except JetmapError as error:
            # Nobody answers the claims on what is left, so the agents drop it.
            logger.debug("map %s could not be called back: %s", map_id, error)

    async def take_back(self, flight: Flight) -> None:
        """Remove a message that no agent has taken, with all the chunks that share it."""
        try:
            await pool_streams.purge(self._connection, self._options.pool, flight.subject)
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
        self._spawn(self.confirm_now(), "confirm")
