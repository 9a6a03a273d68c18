"""Puts chunks on the work stream, hears what became of that, and takes them back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from jetmap.errors import JetmapError, LimitExceeded
from jetmap.nats.broker import Broker, Message
from jetmap.wire import pool_streams, subjects
from jetmap.wire.messages import PROTOCOL, Chunk, Confirmation, Withdraw, encode

from .ack_sampler import Words
from .flight import Flight
from .mapstate import MapState
from .options import DispatchOptions

logger = logging.getLogger(__name__)

CONFIRM_BATCH = 64
CONFIRM_SECONDS = 0.25  # Nothing waits for a confirmation, so several go in one message.

FENCE_SECONDS = 2.0
# The broker answers with an error, in its turn: that stream is not the one of the subject.
FENCE = {"Nats-Expected-Stream": "none"}

Spawn = Callable[..., Any]
Key = tuple[str, int]  # A chunk: its map's id and its number.


class Outbox:
    """What a dispatcher sends.

    refused: called with chunks that the broker did not take, or may not have taken. stored: with
    those that it has. unsendable: with chunks that are too large for it, and why.
    """

    def __init__(
        self,
        connection: Broker,
        options: DispatchOptions,
        inbox: str,
        *,
        refused: Callable[[list[Key]], None],
        stored: Callable[[list[Key]], None],
        unsendable: Callable[[list[Key], str], None],
        spawn: Spawn,
    ) -> None:
        self._connection = connection
        self._options = options
        self._inbox = inbox
        self._refused = refused
        self._stored = stored
        self._unsendable = unsendable
        self._spawn = spawn
        self._words: Words[list[Key]] = Words()
        self._tokens: dict[str, list[int]] = {}
        self._confirming: asyncio.TimerHandle | None = None
        self._renewing = False

    async def publish(self, parcel: list[tuple[MapState, Flight]]) -> None:
        """Sends chunks in one message; the broker's word on it, if it is asked, comes later.

        What is lost without a word is found by silence, and the next try asks.
        """
        state, first = parcel[0]
        if not first.subject:
            # A message that several maps share must not be purged with one of them.
            shared = state.id if len(parcel) == 1 else subjects.new_id()
            pool = self._options.pool
            subject = subjects.work(pool, first.offer, first.lane, shared, first.number)
            for _, flight in parcel:
                flight.subject = subject
        keys = [(state.id, flight.number) for state, flight in parcel]
        again = any(flight.attempt > 1 for _, flight in parcel)
        number = self._words.published(keys, time.monotonic(), ask=again)
        reply = "" if number is None else f"{self._inbox}.ack.{number}"
        chunks = [self._chunk(state, flight) for state, flight in parcel]
        try:
            await self._connection.publish(first.subject, encode(chunks), reply)
        except LimitExceeded as error:
            # Cut for a larger message: the broker has been replaced by one that takes less.
            self._unsendable(keys, str(error))
        except JetmapError as error:
            # Not connected, and the buffer is full: the tick sends it again.
            logger.debug("%s not sent: %s", first.subject, error)

    async def publish_again(self, chunks: list[tuple[MapState, Flight]]) -> None:
        """Sends chunks again that are still out, those that shared a message in one again."""
        parcels: dict[str, list[tuple[MapState, Flight]]] = {}
        for state, flight in chunks:
            if flight.number in state.ledger.flights:
                parcels.setdefault(flight.subject, []).append((state, flight))
        for parcel in parcels.values():
            await self.publish(parcel)

    def _chunk(self, state: MapState, flight: Flight) -> Chunk:
        piece = flight.piece
        budget = self._options.cutting.budget(
            flight.seconds, piece.count, is_sure=state.pace.is_sure
        )
        chunk = Chunk(
            map=state.id,
            number=flight.number,
            attempt=flight.attempt,
            function=state.function,
            format=state.format,
            start=piece.start,
            count=piece.count,
            inbox=self._inbox,
            timeout=state.timeout,
            budget=budget.seconds,
            items=piece.items,
            kwargs=state.kwargs,
            ref=state.ref,
            each=budget.each,
            protocol=PROTOCOL,
        )
        if state.ref is not None and self._options.sealer is not None:
            self._options.sealer.seal(chunk)
        return chunk

    async def on_published(self, message: Message) -> None:
        """The broker's word."""
        number = int(message.subject.rpartition(".")[2])
        # Refused because it is in the stream already, it is where we want it.
        if message.data and (b'"error"' not in message.data or b"per subject" in message.data):
            self._stored(self._words.stored(number) or [])
            return
        doubtful = self._words.refused(number, time.monotonic())
        self._refused([key for keys in doubtful for key in keys])
        if not message.data and not self._renewing:
            self._renewing = True
            self._spawn(self.renew_stream())

    async def renew_stream(self) -> None:
        """Makes the work stream if it is gone."""
        try:
            await pool_streams.ensure_stream(
                self._connection, self._options.pool, self._options.stream
            )
        except JetmapError as error:
            logger.debug("the work stream is not there yet: %s", error)
        finally:
            self._renewing = False

    async def withdraw(self, state: MapState) -> None:
        """Takes back what is out of a map: stops its workers, then empties its queue.

        The queue is purged once more behind a fence: the broker may have taken the first purge
        before what was published last.
        """
        pool = self._options.pool
        fence = subjects.work(pool, "fence", "main", state.id, 0)
        try:
            await self.recall(state.id)
            await self._connection.request(fence, b"", FENCE_SECONDS, headers=FENCE)
            await pool_streams.purge(self._connection, pool, subjects.map_work(pool, state.id))
        except JetmapError as error:
            # Claims find out what is no longer wanted, when the broker is back.
            logger.debug("map %s could not be called back: %s", state.id, error)

    async def recall(self, map: str) -> None:
        """Stops the workers of a map that another dispatcher ran, and empties its queue."""
        pool = self._options.pool
        try:
            await self._connection.publish(subjects.control(pool), encode(Withdraw(map)))
            await pool_streams.purge(self._connection, pool, subjects.map_work(pool, map))
        except JetmapError as error:
            # Nobody answers the claims of what is left, and the agents drop it.
            logger.debug("map %s could not be called back: %s", map, error)

    async def take_back(self, flight: Flight) -> None:
        """Removes a chunk that nobody has taken, with those that share its message."""
        try:
            await pool_streams.purge(self._connection, self._options.pool, flight.subject)
        except JetmapError as error:
            logger.debug("not purged: %s", error)

    async def confirm(self, inbox: str, token: int) -> None:
        """The agent of this inbox may let that delivery go. Sent soon, with others."""
        tokens = self._tokens.setdefault(inbox, [])
        tokens.append(token)
        if len(tokens) >= CONFIRM_BATCH:
            await self.confirm_now()
        elif self._confirming is None:
            loop = asyncio.get_running_loop()
            self._confirming = loop.call_later(CONFIRM_SECONDS, self._confirm_soon)

    async def confirm_now(self) -> None:
        tokens, self._tokens = self._tokens, {}
        for inbox, confirmed in tokens.items():
            try:
                await self._connection.publish(inbox, encode(Confirmation(confirmed)))
            except JetmapError as error:
                logger.debug("not confirmed, the agent will ask again: %s", error)

    def close(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()

    def _confirm_soon(self) -> None:
        self._confirming = None
        self._spawn(self.confirm_now(), "confirm")
